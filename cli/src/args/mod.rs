//! The command line: nouns first, short and singular.

pub(crate) mod complete;
pub(crate) mod usage;

use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCandidates;
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    output::Format,
    verbs::{
        alert::AlertVerb, apply::ApplyArgs, audit::AuditArgs, cluster::ClusterVerb, completions::CompletionsArgs,
        container::ContainerVerb, context::ContextVerb, dev::DevArgs, disk::DiskVerb, mount::MountVerb, node::NodeVerb,
        receiver::ReceiverVerb, rule::RuleVerb, status::StatusArgs, token::TokenVerb, user::UserVerb,
        volume::VolumeVerb,
    },
};

/// Watches disks, mounts, volumes and containers on all your nodes
///
/// Begin with `mainstay dev`: the whole mesh on this machine.
#[derive(Parser, Debug)]
#[command(name = "mainstay", version, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes, before or after it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Which cluster, and as whom: a name from `mainstay context ls`, or a context file
    #[arg(long, global = true, value_name = "NAME|FILE", add = ArgValueCandidates::new(complete::contexts))]
    pub(crate) context: Option<String>,
    /// How to print: tables for people, the others for scripts
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        hide_possible_values = true,
        help = "How to print: table, wide, json, yaml or name"
    )]
    pub(crate) output: Format,
    /// Ask just this replica
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) coordinator: Option<String>,
    /// Take a replica's own view, without asking the leader; how old it is stands on standard error
    #[arg(long, global = true)]
    pub(crate) stale: bool,
    /// Give what changes something this name: asked again under it within a day, it is done once
    #[arg(long, global = true, value_name = "NAME", value_parser = parse_request)]
    pub(crate) request: Option<MetadataValue<Ascii>>,
}

/// A name as the coordinator takes it.
fn parse_request(text: &str) -> Result<MetadataValue<Ascii>, String> {
    let is_name = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let name = is_name.then(|| text.parse().ok()).flatten();
    name.ok_or_else(|| "a request's name has 1 to 128 visible ASCII characters".into())
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// One screen: replicas, nodes, and what needs a look
    Status(StatusArgs),
    /// Machines with an agent
    #[command(subcommand)]
    Node(NodeVerb),
    /// Local filesystems
    #[command(subcommand)]
    Disk(DiskVerb),
    /// rclone, FUSE, NFS and CIFS mounts
    #[command(subcommand)]
    Mount(MountVerb),
    /// Container volumes
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Containers, stopped ones too
    #[command(subcommand)]
    Container(ContainerVerb),
    /// Receivers, routes and rules as files declare them
    Apply(ApplyArgs),
    /// Where a rule holds, and who was told
    #[command(subcommand)]
    Alert(AlertVerb),
    /// What is watched for
    #[command(subcommand)]
    Rule(RuleVerb),
    /// Where messages go
    #[command(subcommand)]
    Receiver(ReceiverVerb),
    /// Who did what, when, from where, and what came of it
    Audit(AuditArgs),
    /// Join tokens, which turn a machine into a node
    #[command(subcommand)]
    Token(TokenVerb),
    /// People, and what they may do
    #[command(subcommand)]
    User(UserVerb),
    /// The cluster itself: its replicas and its CA
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Clusters that this command line can reach
    #[command(subcommand)]
    Context(ContextVerb),
    /// The whole mesh on this machine, with its real readings, until Ctrl-C
    Dev(DevArgs),
    /// Print the script that makes a shell complete names
    Completions(CompletionsArgs),
}

/// What every listing of things on nodes takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct ListArgs<O: clap::ValueEnum + Send + Sync + 'static> {
    /// Only this node, or those that a glob matches
    #[arg(long, value_name = "NAME|GLOB", add = ArgValueCandidates::new(complete::nodes))]
    pub(crate) node: Option<String>,
    /// What comes first
    #[arg(long, value_enum, value_name = "KEY")]
    pub(crate) sort: Option<O>,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

/// What every listing takes.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct WatchArgs {
    /// Go on showing what changes, until Ctrl-C
    #[arg(long, short)]
    pub(crate) watch: bool,
}

/// What every verb takes that changes something.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct YesArgs {
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Which one of the things on nodes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// Node and name as listed, or both in one word as `-o name` prints; the name alone where only one node has it
    #[arg(value_names = ["NODE", "NAME"], num_args = 1..=2, required = true, add = ArgValueCandidates::new(complete::nodes))]
    pub(crate) which: Vec<std::ffi::OsString>,
    /// Only on this node
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::nodes))]
    pub(crate) node: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_work_before_and_after_the_verb() {
        for line in [
            "mainstay --context a -o json --coordinator h:1 --stale node ls",
            "mainstay node ls --context a -o json --coordinator h:1 --stale",
            "mainstay node --context=a -ojson ls --coordinator=h:1 --stale",
        ] {
            let global = Cli::try_parse_from(line.split(' ')).unwrap().global;
            assert_eq!((global.context.as_deref(), global.output), (Some("a"), Format::Json), "{line}");
            assert_eq!((global.coordinator.as_deref(), global.stale), (Some("h:1"), true), "{line}");
        }
    }

    #[test]
    fn every_listing_takes_what_every_listing_takes() {
        for noun in ["node", "disk", "mount", "volume", "container", "alert"] {
            let line = format!("mainstay {noun} ls --node n* --watch -o wide");
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for noun in ["disk", "mount", "volume", "container"] {
            let line = format!("mainstay {noun} ls --sort used");
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn every_verb_that_changes_something_takes_yes() {
        for line in [
            "node label n1 a=b",
            "node rm n1",
            "token create",
            "token revoke t",
            "user add eve --role viewer --out f",
            "user revoke eve",
            "context use prod",
            "apply -f x.toml",
            "cluster add",
            "cluster remove r2",
            "cluster transfer r2",
            "cluster ca rotate",
        ] {
            let line = format!("mainstay {line} --yes");
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
