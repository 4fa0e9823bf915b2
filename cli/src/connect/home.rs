//! The command line's own files: contexts, and which of them is the current one.
//!
//! `contexts/NAME.context` and `current` in `MAINSTAY_HOME`, else in `mainstay` among the user's configuration.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use mainstay_common::{
    ExitCode, Failure,
    id::is_name,
    process::{
        config::nearest,
        context::Context,
        data_dir::{self, unusable},
    },
    text::Shown,
};

use super::lock::Lock;

/// What a context's file name ends with.
const EXTENSION: &str = "context";

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

/// A context, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    /// Its name; `None` for a file that was given by its path.
    pub(crate) name: Option<String>,
    pub(crate) path: PathBuf,
    pub(crate) context: Context,
}

impl Home {
    /// Where the environment says.
    ///
    /// # Errors
    /// Where it says nothing.
    pub(crate) fn of_env() -> Result<Self, Failure> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = || variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
        variable("MAINSTAY_HOME").or_else(|| config().map(|config| config.join("mainstay"))).map(Self).ok_or_else(
            || {
                Failure::new(
                    ExitCode::Usage,
                    "no place for contexts",
                    "none of MAINSTAY_HOME, XDG_CONFIG_HOME and HOME is set",
                    "MAINSTAY_HOME=DIR mainstay …, or --context FILE",
                )
            },
        )
    }

    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A file of its own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn folder(&self) -> PathBuf {
        self.0.join("contexts")
    }

    /// Where a context of that name is kept.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.{EXTENSION}"))
    }

    /// Names of all contexts, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| {
            let path = entry.path();
            let name = path.file_stem()?.to_str().filter(|name| is_name(name))?.to_owned();
            (path.extension()? == EXTENSION).then_some(name)
        };
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort_unstable();
        names
    }

    /// The name that `context use` noted; the only context there is where it noted none.
    pub(crate) fn current(&self) -> Option<String> {
        let noted = fs::read_to_string(self.file("current")).ok().map(|text| text.trim().to_owned());
        noted.filter(|name| is_name(name)).or_else(|| {
            let mut names = self.names();
            if names.len() == 1 { names.pop() } else { None }
        })
    }

    /// Whether `context use` ever noted one that is still there.
    pub(crate) fn has_current(&self) -> bool {
        let noted = fs::read_to_string(self.file("current")).unwrap_or_default();
        is_name(noted.trim()) && self.path_of(noted.trim()).exists()
    }

    /// Notes which context is the current one.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn set_current(&self, name: &str) -> Result<(), Failure> {
        self.make()?;
        let path = self.file("current");
        data_dir::replace(&path, format!("{name}\n").as_bytes(), 0o600).map_err(|error| unwritable(&path, &error))
    }

    /// Keeps a context under a name, whatever was there.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn save(&self, name: &str, context: &Context) -> Result<PathBuf, Failure> {
        self.make()?;
        let path = self.path_of(name);
        let _lock = Lock::wait(&self.folder()).map_err(|error| unwritable(&self.folder(), &error))?;
        context.save(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(path)
    }

    /// Takes over a context from a file; gives the name it got. Another person's context stays, and so does another
    /// cluster's of the same name.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn import(&self, context: &Context) -> Result<String, Failure> {
        // A file that cannot be read is nobody's; `replace` keeps it from being half of each.
        let name = free_name(context, |name| Context::load(&self.path_of(name)).ok());
        self.save(&name, context)?;
        Ok(name)
    }

    fn make(&self) -> Result<(), Failure> {
        let folder = self.folder();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| unwritable(&folder, &error))
    }

    /// The context to use: the one that is given, else the one of `MAINSTAY_CONTEXT`, else the current one.
    ///
    /// # Errors
    /// Where there is none, or none of that name.
    pub(crate) fn resolve(&self, given: Option<&str>) -> Result<Located, Failure> {
        let variable = env::var("MAINSTAY_CONTEXT").ok().filter(|value| !value.is_empty());
        match given.or(variable.as_deref()) {
            Some(wish) => self.named(wish),
            None => self.named(&self.current().ok_or_else(|| no_context(&self.names()))?),
        }
    }

    /// A context by its name or its file. What has a slash in it is a file; else a name goes before a file.
    pub(crate) fn named(&self, wish: &str) -> Result<Located, Failure> {
        let path = self.path_of(wish);
        if is_name(wish) && path.exists() {
            return Ok(Located { name: Some(wish.to_owned()), context: Context::load(&path)?, path });
        }
        let path = Path::new(wish);
        if wish.contains('/') || path.exists() {
            return Ok(Located { name: None, context: Context::load(path)?, path: path.to_owned() });
        }
        let names = self.names();
        let near = nearest(wish, names.iter().map(String::as_str));
        let why = match (near, names.is_empty()) {
            (Some(near), _) => format!("nearest: {near}"),
            (None, true) => "there is no context yet, and no file of that name".into(),
            (None, false) => format!("there are: {}", names.join(", ")),
        };
        Err(Failure::new(
            ExitCode::Usage,
            format!("context \"{}\" is unknown", Shown::new(wish)),
            why,
            "mainstay context ls",
        ))
    }
}

/// The name for a context: its cluster's, unless that one is somebody else's.
fn free_name(context: &Context, there: impl Fn(&str) -> Option<Context>) -> String {
    let short: String = context.cluster_id.as_str().chars().take(6).collect();
    let cluster = if is_name(&context.cluster) { context.cluster.clone() } else { short.clone() };
    let own = format!("{cluster}-{}", context.user);
    let same = |other: &Context| other.cluster_id == context.cluster_id && other.user == context.user;
    let candidates = [cluster, own.clone()];
    let found = candidates.into_iter().find(|name| there(name).is_none_or(|other| same(&other)));
    found.unwrap_or_else(|| format!("{own}-{short}"))
}

fn no_context(names: &[String]) -> Failure {
    let (why, try_next) = if names.is_empty() {
        (
            "no cluster is known here yet",
            "mainstay dev; or with a context file from an administrator: mainstay context use FILE",
        )
    } else {
        ("several are there, and none is the current one", "mainstay context use NAME; mainstay context ls lists them")
    };
    Failure::new(ExitCode::Usage, "no context", why, try_next)
}

/// Why a file of the command line's own cannot be written.
fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let failure = unusable(path, error);
    Failure { try_next: "check the disk and who owns that folder, or set MAINSTAY_HOME to another".into(), ..failure }
}

#[cfg(test)]
mod tests {
    use mainstay_common::identity::HumanRole;

    use super::*;

    #[test]
    fn another_persons_context_stays() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        assert_eq!(home.import(&context("prod", "c1", "anna")).unwrap(), "prod");
        assert_eq!(home.import(&context("prod", "c1", "anna")).unwrap(), "prod");
        assert_eq!(home.import(&context("prod", "c1", "bob")).unwrap(), "prod-bob");
        assert_eq!(home.import(&context("prod", "c2", "bob")).unwrap(), "prod-bob-c2");
        assert_eq!(home.import(&context("prod", "c2", "eve")).unwrap(), "prod-eve");
        assert_eq!(home.named("prod").unwrap().context.user.as_str(), "anna");
        assert_eq!(home.names(), ["prod", "prod-bob", "prod-bob-c2", "prod-eve"]);
    }

    #[test]
    fn the_only_context_needs_no_choice_and_several_need_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        assert!(home.resolve(None).unwrap_err().try_next.contains("mainstay dev"));
        home.import(&context("prod", "c1", "anna")).unwrap();
        assert_eq!(home.resolve(None).unwrap().name.as_deref(), Some("prod"));
        home.import(&context("lab", "c2", "anna")).unwrap();
        assert!(home.resolve(None).unwrap_err().try_next.contains("context use NAME"));
        home.set_current("lab").unwrap();
        assert_eq!(home.resolve(None).unwrap().name.as_deref(), Some("lab"));
        assert_eq!(home.named("prodd").unwrap_err().why, "nearest: prod");
    }

    #[test]
    fn a_path_is_a_file_and_a_name_goes_before_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let file = folder.path().join("eve.context");
        context("prod", "c1", "eve").save(&file).unwrap();
        let located = home.named(file.to_str().unwrap()).unwrap();
        assert_eq!((located.name, located.path), (None, file));
        assert_eq!(home.named("./no/such").unwrap_err().code, ExitCode::Usage);
    }

    fn context(cluster: &str, id: &str, user: &str) -> Context {
        Context {
            cluster: cluster.into(),
            cluster_id: id.parse().unwrap(),
            addresses: vec!["127.0.0.1:7443".into()],
            user: user.parse().unwrap(),
            role: HumanRole::Viewer,
            ca: "ca".into(),
            certificate: "certificate".into(),
            key: "key".into(),
        }
    }
}
