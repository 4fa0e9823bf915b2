//! `mainstay rule`.

use clap::Subcommand;
use mainstay_common::{Failure, process::now};
use mainstay_proto::v1 as pb;

use crate::{
    args::{Global, WatchArgs},
    connect::Session,
    output::{
        Format,
        cell::Cell,
        json,
        listing::{Listing, unknown},
        look::Look,
        out,
        row::Row as _,
        rows::RuleRow,
        sheet::Sheet,
    },
};

/// What is watched for.
#[derive(Subcommand, Debug)]
pub(crate) enum RuleVerb {
    /// List the catalogue, and what declarations changed
    Ls(WatchArgs),
    /// Show one with everything that narrows it
    Show {
        /// Its name, such as fs.space
        name: String,
    },
}

/// Carries out a verb.
pub(crate) async fn run(verb: RuleVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        RuleVerb::Ls(watch) => ls(watch, global, &mut session).await,
        RuleVerb::Show { name } => show(&name, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn fetch(session: &mut Session) -> Result<Vec<RuleRow>, Failure> {
    let answer = session.look(async |mut viewer| viewer.list_rules(pb::ListRulesRequest {}).await).await?;
    Ok(answer.rows.into_iter().map(RuleRow::from).collect())
}

async fn ls(watch: WatchArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    super::list(watch, global, session, async |session| {
        Ok(Listing::new(fetch(session).await?, "no rules: the coordinator is older than they are").sorted(()))
    })
    .await
}

async fn show(name: &str, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let all = Listing::new(fetch(session).await?, "").sorted(()).rows;
    let names: Vec<String> = all.iter().filter(|row| row.builtin).map(RuleRow::name).collect();
    let found: Vec<RuleRow> = all.into_iter().filter(|row| row.name.0 == name.as_bytes()).collect();
    if found.is_empty() {
        return Err(unknown("rule", &mainstay_common::text::Shown::new(name).to_string(), &names));
    }
    out::say(&match global.output {
        Format::Json => json::pretty(&found)?,
        Format::Yaml => json::yaml(&found)?,
        Format::Name => found[0].name() + "\n",
        Format::Table | Format::Wide => {
            let look = Look::of_stdout();
            let mut text = String::new();
            for row in &found {
                let narrowed =
                    if row.narrowed.is_empty() { Cell::text("everywhere") } else { Cell::text(&row.narrowed_text()) };
                let title = vec![Cell::text(&row.name), narrowed];
                text += &Sheet::new(title).row(row, &["NAME", "MATCH"], now()).text(&look);
                if row.builtin {
                    text += &format!("  {}\n", mainstay_common::text::Shown::new(&row.help));
                }
                text.push('\n');
            }
            text.trim_end().to_owned() + "\n"
        }
    })
}
