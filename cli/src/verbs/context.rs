//! `mainstay context`.

use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use mainstay_common::{
    Failure,
    process::{context::Context, tls::Certificate},
    text::Shown,
};

use crate::{
    args::{Global, WatchArgs, YesArgs, complete},
    connect::{Home, Located},
    output::{
        Format, json,
        listing::Listing,
        out,
        row::{Row as _, Text},
        rows::ContextRow,
        watch,
    },
};

/// Clusters that this command line can reach.
#[derive(Subcommand, Debug)]
pub(crate) enum ContextVerb {
    /// List them
    Ls(WatchArgs),
    /// Use one from now on; a file is taken over first
    Use {
        /// A name from `mainstay context ls`, or a context file
        #[arg(value_name = "NAME|FILE", add = ArgValueCandidates::new(complete::contexts))]
        wish: String,
        #[command(flatten)]
        _yes: YesArgs,
    },
}

/// Carries out a verb.
pub(crate) async fn run(verb: ContextVerb, global: &Global) -> Result<(), Failure> {
    let home = Home::of_env()?;
    match verb {
        ContextVerb::Ls(args) if args.watch => watch::follow(global.output, async || Ok(listing(&home, global))).await,
        ContextVerb::Ls(_) => listing(&home, global).print(global.output),
        ContextVerb::Use { wish, .. } => take_up(&home, &wish, global),
    }
}

fn listing(home: &Home, global: &Global) -> Listing<ContextRow> {
    let in_use = home.resolve(global.context.as_deref()).ok();
    let in_use = in_use.as_ref().and_then(|located| located.name.as_deref());
    let rows = home.names().into_iter().map(|name| row(home, name.clone(), in_use == Some(&name))).collect();
    Listing::new(
        rows,
        "no contexts yet: mainstay dev makes one; mainstay context use FILE takes over an administrator's",
    )
    .sorted(())
}

fn row(home: &Home, name: String, current: bool) -> ContextRow {
    let path = home.path_of(&name);
    let loaded = Context::load(&path);
    let error = loaded.as_ref().err().map(|failure| format!("{}: {}", failure.what, failure.why)).unwrap_or_default();
    let context = loaded.ok();
    let text = |of: fn(&Context) -> String| context.as_ref().map(of).unwrap_or_default().into();
    ContextRow {
        name: name.into(),
        current,
        cluster: text(|context| context.cluster.clone()),
        user: text(|context| context.user.to_string()),
        role: text(|context| context.role.to_string()),
        expires_at: context
            .as_ref()
            .and_then(|context| Certificate::from_pem(&context.certificate).ok())
            .map(|certificate| certificate.not_after),
        addresses: text(|context| context.addresses.join(" ")),
        file: Text(path.as_os_str().as_encoded_bytes().to_vec()),
        error: error.into(),
    }
}

fn take_up(home: &Home, wish: &str, global: &Global) -> Result<(), Failure> {
    let before = home.current();
    let Located { name, context, .. } = home.named(wish)?;
    let name = match name {
        Some(name) => name,
        None => home.import(&context)?,
    };
    home.set_current(&name)?;
    let row = row(home, name.clone(), true);
    out::say(&match global.output {
        Format::Json => json::pretty(&row)?,
        Format::Yaml => json::yaml(&row)?,
        Format::Name => row.name() + "\n",
        Format::Table | Format::Wide => {
            let cluster = Shown::new(&context.cluster);
            format!("{name} is the context now: cluster {cluster}, as {} ({})\n", context.user, context.role)
        }
    })?;
    if global.output.is_for_people()
        && let Some(before) = before.filter(|before| *before != name)
    {
        out::remark(&format!("back: mainstay context use {before}"));
    }
    if std::env::var_os("MAINSTAY_CONTEXT").is_some_and(|variable| !variable.is_empty() && *variable != *name) {
        out::remark("MAINSTAY_CONTEXT is set here and still wins");
    }
    Ok(())
}
