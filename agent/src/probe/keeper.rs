//! Who has which child: the one task that starts children, hands them questions, and knows what hangs.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    io,
    time::Duration,
};

use mainstay_common::{Timestamp, process::now};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    process::Child,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Answer, Ask, CHILD, Census, Errno, HUNG_LIMIT, Key, Outcome, Outstanding, PATIENCE, Told,
    leftover::{self, Leftover},
    wire::{self, Question, Reply},
};
use crate::children;

/// A child that takes longer than this no longer holds up the rest: the next question goes to another one.
const STEP_ASIDE: Duration = Duration::from_millis(60);
/// Local things are asked although much hangs, but not without end.
const CHILD_LIMIT: usize = 64;

/// What the handle sends.
pub(super) enum Request {
    Question(Asked),
    Census(oneshot::Sender<Census>),
}

/// A question and who waits for what becomes of it.
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// A child that waits for a question.
struct Line {
    socket: UnixStream,
    // Held so that the runtime collects the child when it ended.
    _child: Child,
}

/// A question that a child has.
struct Underway {
    began: Instant,
    since: Timestamp,
}

/// The task's own state.
pub(super) struct Keeper {
    program: OsString,
    waiting: VecDeque<Asked>,
    underway: BTreeMap<Key, Underway>,
    exchanges: JoinSet<(Key, Option<Line>)>,
    idle: Option<Line>,
    /// The question whose child serves all; `None` when it answered or stepped aside.
    current: Option<(Key, Instant)>,
    leftovers: Vec<(Leftover, Timestamp)>,
}

impl Keeper {
    pub(super) fn new(program: OsString) -> Self {
        Self {
            program,
            waiting: VecDeque::new(),
            underway: BTreeMap::new(),
            exchanges: JoinSet::new(),
            idle: None,
            current: None,
            leftovers: Vec::new(),
        }
    }

    /// Lives until the last handle is gone; then all children see the end of their sockets.
    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        let started = now();
        if let Ok(found) = tokio::task::spawn_blocking(leftover::find).await {
            self.leftovers = found.into_iter().map(|leftover| (leftover, started)).collect();
        }
        loop {
            let aside = match &self.current {
                Some((_, began)) => Some(*began + STEP_ASIDE),
                // That something hangs is known by time alone.
                None => (!self.waiting.is_empty()).then(|| Instant::now() + STEP_ASIDE * 8),
            };
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(Request::Question(asked)) => self.admit(asked),
                    // Whoever asked may have gone.
                    Some(Request::Census(reply)) => reply.send(self.census()).unwrap_or(()),
                    None => return,
                },
                Some(ended) = self.exchanges.join_next() => {
                    // An exchange that panicked took its child along, and its key stays taken: nothing is asked twice.
                    if let Ok((key, line)) = ended {
                        self.ended(&key, line);
                    }
                }
                () = sleep_until(aside.unwrap_or_else(Instant::now)), if aside.is_some() => self.current = None,
            }
            while self.current.is_none()
                && let Some(asked) = self.next_waiting()
            {
                self.hand_out(asked);
            }
        }
    }

    fn admit(&mut self, asked: Asked) {
        self.leftovers.retain(|(leftover, _)| leftover.is_there());
        let left = self.leftovers.iter().find(|(leftover, _)| leftover.title == asked.key.title());
        let since = self.underway.get(&asked.key).map(|underway| underway.since).or(left.map(|(_, since)| *since));
        if let Some(since) = since {
            return tell(asked.reply, Outcome::Busy(since));
        }
        if self.waiting.iter().any(|other| other.key == asked.key) {
            return tell(asked.reply, Outcome::Busy(now()));
        }
        self.waiting.push_back(asked);
    }

    /// The next question that may be asked now. With as many children as there may be, the rest waits until one
    /// answers or is known to hang.
    fn next_waiting(&mut self) -> Option<Asked> {
        if self.underway.len() >= HUNG_LIMIT {
            if self.hung() >= HUNG_LIMIT {
                let (refused, kept): (VecDeque<_>, _) = self.waiting.drain(..).partition(|asked| asked.key.network);
                self.waiting = kept;
                refused.into_iter().for_each(|asked| tell(asked.reply, Outcome::Limit));
            }
            let local = self.waiting.iter().position(|asked| !asked.key.network)?;
            return (self.underway.len() < CHILD_LIMIT).then(|| self.waiting.remove(local)).flatten();
        }
        self.waiting.pop_front()
    }

    fn hand_out(&mut self, asked: Asked) {
        let line = match self.idle.take().map_or_else(|| start(&self.program), Ok) {
            Ok(line) => line,
            Err(error) => return tell(asked.reply, Outcome::Lost(format!("no child could be started: {error}"))),
        };
        let (began, since) = (Instant::now(), now());
        self.current = Some((asked.key.clone(), began));
        self.underway.insert(asked.key.clone(), Underway { began, since });
        self.exchanges.spawn(exchange(line, asked, since));
    }

    fn ended(&mut self, key: &Key, line: Option<Line>) {
        self.underway.remove(key);
        if self.current.as_ref().is_some_and(|(current, _)| current == key) {
            self.current = None;
        }
        // One idle child is enough: another one sees the end of its socket here, and ends.
        if self.idle.is_none() {
            self.idle = line;
        }
    }

    fn hung(&self) -> usize {
        self.underway.values().filter(|underway| underway.began.elapsed() >= PATIENCE).count() + self.leftovers.len()
    }

    fn census(&mut self) -> Census {
        self.leftovers.retain(|(leftover, _)| leftover.is_there());
        let children = self.underway.len() + usize::from(self.idle.is_some()) + self.leftovers.len();
        Census { children, hung: self.hung() }
    }
}

/// Whoever asked may have gone; then nobody needs to know.
fn tell(reply: oneshot::Sender<Outcome>, outcome: Outcome) {
    reply.send(outcome).unwrap_or(());
}

fn start(program: &OsStr) -> io::Result<Line> {
    let (socket, child) = children::start(program, CHILD)?;
    Ok(Line { socket, _child: child })
}

/// One question and its answer, however late. Gives the child back if it can serve again: one that hung ends.
async fn exchange(mut line: Line, asked: Asked, since: Timestamp) -> (Key, Option<Line>) {
    let Asked { key, ask, reply } = asked;
    let question = question(&key, &ask);
    let mut conversation = Box::pin(converse(&mut line.socket, &question));
    if let Ok(answered) = timeout(PATIENCE, &mut conversation).await {
        drop(conversation);
        let healthy = answered.is_ok();
        let outcome = match answered {
            Ok(told) => Outcome::Answered(answer(&ask, told)),
            Err(error) => Outcome::Lost(format!("the child ended: {error}")),
        };
        tell(reply, outcome);
        return (key, healthy.then_some(line));
    }
    let (late, receiver) = oneshot::channel();
    tell(reply, Outcome::Hung(Outstanding { since, late: receiver }));
    let answered = conversation.await.ok().map(|told| answer(&ask, told));
    late.send(answered).unwrap_or(());
    (key, None)
}

async fn converse(socket: &mut UnixStream, question: &Question) -> io::Result<Reply> {
    socket.write_all(&children::frame(question)).await?;
    children::read(socket).await
}

fn question(key: &Key, ask: &Ask) -> Question {
    let (kind, paths, programs) = match ask {
        Ask::Statfs(path) => (wire::STATFS, vec![path.clone()], Vec::new()),
        Ask::Folder(path) => (wire::FOLDER, vec![path.clone()], Vec::new()),
        Ask::File(path) => (wire::FILE, vec![path.clone()], Vec::new()),
        Ask::Owners(wanted) => {
            let (paths, programs) = wanted.iter().cloned().unzip();
            (wire::OWNERS, paths, programs)
        }
    };
    Question { kind, paths, title: key.title(), programs }
}

fn answer(ask: &Ask, reply: Reply) -> Answer {
    let took = Duration::from_nanos(reply.took_ns);
    if reply.errno != 0 {
        return Answer { told: Err(Errno(reply.errno)), took };
    }
    let told = match ask {
        Ask::Statfs(_) => reply.space.map(Told::Space).ok_or(Errno(libc::ENOSYS)),
        Ask::Folder(_) => Ok(Told::Names(reply.names, reply.cut)),
        Ask::File(_) => Ok(Told::Content(reply.content, reply.cut)),
        Ask::Owners(_) => Ok(Told::Owners(reply.owners)),
    };
    Answer { told, took }
}
