//! A task for each rclone: it keeps what is known of it current, and ends with its mount.

use std::{future::pending, sync::Arc, time::Duration};

use mainstay_common::state::RcState;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    access::{self, Access, Address, Control},
    client::Client,
    control,
    known::Known,
    remote,
};
use crate::{
    collect::listing::Listed,
    config::RcloneConfig,
    probe::{Ask, Key, Outcome, Owner, Probes, Told},
};

/// A password file that could not be read, or did not serve, is read again.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// Who says where the remote control is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Configured(RcloneConfig),
    Process(Owner),
}

/// What followers of all mounts share: one question to a remote at a time.
#[derive(Clone, Debug)]
pub(in crate::collect) struct Shared(pub(super) Arc<Semaphore>);

impl Default for Shared {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// What a follower needs besides.
#[derive(Clone, Debug)]
pub(in crate::collect) struct Surroundings {
    /// What the mount says that it shows.
    pub(in crate::collect) source: String,
    pub(in crate::collect) probes: Probes,
    pub(in crate::collect) listing: watch::Receiver<Listed>,
    pub(in crate::collect) shared: Shared,
    /// Told when a state changed.
    pub(in crate::collect) news: Arc<Notify>,
}

/// What is known of one rclone, kept current. Whoever drops it ends its task.
#[derive(Debug)]
pub(in crate::collect) struct Follower {
    source: Source,
    known: watch::Receiver<Known>,
    _task: AbortOnDropHandle<()>,
}

impl Follower {
    /// Follows as configured, else as the process says; goes on with `current` where that changes nothing. `None` where
    /// nobody says how.
    pub(in crate::collect) fn follow(
        current: Option<Self>,
        configured: Option<&RcloneConfig>,
        process: Option<&Owner>,
        surroundings: impl FnOnce() -> Surroundings,
    ) -> Option<Self> {
        let configured = configured.map(|config| Source::Configured(config.clone()));
        let source = configured.or_else(|| process.map(|owner| Source::Process(owner.clone())))?;
        if let Some(current) = current.filter(|current| current.source == source) {
            return Some(current);
        }
        let (told, known) = watch::channel(Known::default());
        let teller = Teller { surroundings: surroundings(), told };
        let task = tokio::spawn(run(source.clone(), teller));
        Some(Self { source, known, _task: AbortOnDropHandle::new(task) })
    }

    /// What is known now.
    pub(in crate::collect) fn known(&self) -> Known {
        self.known.borrow().clone()
    }
}

/// Where a follower's task tells what it learned.
pub(super) struct Teller {
    pub(super) surroundings: Surroundings,
    told: watch::Sender<Known>,
}

impl Teller {
    /// Changes what is known; a state that changed is news.
    pub(super) fn tell(&self, change: impl FnOnce(&mut Known)) {
        let mut news = false;
        self.told.send_modify(|known| {
            let before = known.clone();
            change(known);
            news = known.is_news(&before);
        });
        if news {
            self.surroundings.news.notify_one();
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Known> {
        self.told.subscribe()
    }

    pub(super) fn client(&self, access: &Access) -> Client {
        let Surroundings { probes, listing, .. } = &self.surroundings;
        Client::new(access.clone(), probes.clone(), listing.clone())
    }
}

async fn run(source: Source, teller: Teller) {
    loop {
        let control = match &source {
            Source::Configured(config) => of_config(config, &teller.surroundings.probes).await,
            Source::Process(owner) => access::of_process(owner),
        };
        match control {
            Control::None => teller.tell(|known| *known = Known::unreachable(RcState::None, "")),
            Control::Unusable(why) => teller.tell(|known| *known = Known::unreachable(RcState::Unreachable, why)),
            Control::At(access) => {
                tokio::select! {
                    () = control::follow(&access, &teller) => {}
                    () = remote::follow(&access, &teller) => {}
                }
            }
        }
        match source {
            Source::Configured(_) => sleep(READ_AGAIN).await,
            // A process does not change its arguments.
            Source::Process(_) => pending().await,
        }
    }
}

/// The password file is read by a child, since it may lie on what hangs.
async fn of_config(config: &RcloneConfig, probes: &Probes) -> Control {
    let Some(address) = Address::parse(&config.rc) else { return Control::Unusable("rc names no address") };
    let password = match &config.password_file {
        None => Some(String::new()),
        Some(file) => {
            let name = file.as_os_str().as_encoded_bytes();
            let key = Key::local([b"rclone password ", name].concat());
            first_line(probes.ask(key, Ask::File(name.to_vec())).await)
        }
    };
    let Some(password) = password else { return Control::Unusable("its password_file cannot be read") };
    let authorization = config.user.as_deref().map(|user| access::basic(user, &password));
    Control::At(Access { address, base: String::new(), authorization, must_be_local: false })
}

fn first_line(outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Answered(answer) => match answer.told {
            Ok(Told::Content(text, _)) => {
                Some(String::from_utf8(text).ok()?.lines().next().unwrap_or_default().to_owned())
            }
            Ok(Told::Space(_) | Told::Names(..) | Told::Owners(_)) | Err(_) => None,
        },
        Outcome::Hung(_) | Outcome::Busy(_) | Outcome::Limit | Outcome::Lost(_) => None,
    }
}
