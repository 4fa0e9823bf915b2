//! Names for the shell's completion: from the coordinator within 300 ms, remembered for 10 s. When that fails there are
//! no candidates: a shell must never hang.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap_complete::CompletionCandidate;
use mainstay_common::process::{data_dir, now};
use mainstay_proto::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::connect::{self, Home, Located, failure};

/// Longest wait for names.
const LIMIT: Duration = Duration::from_millis(300);
/// How long names are remembered.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Names of one cluster.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Names {
    nodes: Vec<String>,
    tokens: Vec<String>,
    users: Vec<String>,
}

/// Contexts, for `--context` and `context use`.
pub(crate) fn contexts() -> Vec<CompletionCandidate> {
    candidates(&Home::of_env().map(|home| home.names()).unwrap_or_default())
}

/// Nodes.
pub(crate) fn nodes() -> Vec<CompletionCandidate> {
    candidates(&names().nodes)
}

/// Join tokens that still count.
pub(crate) fn tokens() -> Vec<CompletionCandidate> {
    candidates(&names().tokens)
}

/// Users who may come in.
pub(crate) fn users() -> Vec<CompletionCandidate> {
    candidates(&names().users)
}

fn candidates(names: &[String]) -> Vec<CompletionCandidate> {
    // A name goes into a shell's line: what is none, and could mean something there, does not.
    names.iter().filter(|name| mainstay_common::id::is_name(name)).map(CompletionCandidate::new).collect()
}

fn names() -> Names {
    known().unwrap_or_default()
}

fn known() -> Option<Names> {
    let home = Home::of_env().ok()?;
    let words: Vec<String> = env::args().collect();
    let located = home.resolve(flag(&words, "--context").as_deref()).ok()?;
    let memory = home.file("cache").join(format!("{}-{}.names", located.context.cluster_id, located.context.user));
    if let Some(names) = remembered(&memory) {
        return Some(names);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let names = runtime.block_on(async { tokio::time::timeout(LIMIT, ask(&located)).await });
    // A name that is looked up for ever must not keep the shell.
    runtime.shutdown_background();
    let names = names.ok()??;
    if let (Some(folder), Ok(text)) = (memory.parent(), serde_json::to_vec(&names)) {
        // Without a memory the next completion asks again.
        fs::create_dir_all(folder).and_then(|()| data_dir::replace(&memory, &text, 0o600)).unwrap_or(());
    }
    Some(names)
}

/// The value of a flag among the words of a command line that is not finished.
fn flag(words: &[String], name: &str) -> Option<String> {
    let spaced = words.windows(2).rev().find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    let joined = || words.iter().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    spaced.or_else(joined).filter(|value| !value.is_empty())
}

fn remembered(memory: &PathBuf) -> Option<Names> {
    let age = SystemTime::now().duration_since(fs::metadata(memory).ok()?.modified().ok()?).ok()?;
    if age > REMEMBERED {
        return None;
    }
    serde_json::from_slice(&fs::read(memory).ok()?).ok()
}

async fn ask(located: &Located) -> Option<Names> {
    failure::check_dates(&located.context, now()).ok()?;
    let (_, channel) = connect::connect(located, &located.context.addresses).await.ok()?;
    let mut viewer = pb::viewer_client::ViewerClient::new(channel.clone());
    let mut admin = pb::admin_client::AdminClient::new(channel);
    let mut second = admin.clone();
    let (nodes, tokens, users) = tokio::join!(
        viewer.list_nodes(pb::ListRequest::default()),
        admin.list_tokens(pb::ListTokensRequest {}),
        second.list_users(pb::ListUsersRequest {}),
    );
    Some(Names {
        nodes: nodes.ok()?.into_inner().rows.into_iter().map(|row| row.name).collect(),
        // Only administrators may ask: others complete nothing here.
        tokens: tokens.map(|answer| active(answer.into_inner().rows, |row| (row.state, row.id))).unwrap_or_default(),
        users: users.map(|answer| active(answer.into_inner().rows, |row| (row.state, row.name))).unwrap_or_default(),
    })
}

fn active<R>(rows: Vec<R>, state_and_name: impl Fn(R) -> (String, String)) -> Vec<String> {
    rows.into_iter().map(state_and_name).filter(|(state, _)| state == "active").map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_of_an_unfinished_line_is_found() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(flag(&words("mainstay -- mainstay --context prod node rm "), "--context").as_deref(), Some("prod"));
        assert_eq!(flag(&words("mainstay node rm --context=lab n"), "--context").as_deref(), Some("lab"));
        assert_eq!(flag(&words("mainstay node rm n"), "--context"), None);
        assert_eq!(flag(&words("mainstay node rm --context"), "--context"), None);
    }

    #[test]
    fn only_names_reach_the_shell() {
        assert_eq!(candidates(&["n1".into(), "$(reboot)".into(), "a b".into()]).len(), 1);
    }
}
