//! Engines that no real one will ever be: they never answer, talk rubbish, refuse, or have a thousand containers whose
//! names attack whoever shows them.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::unix_http::{Answer, Asked, UnixHttp};

/// Takes every connection and never answers.
#[must_use]
pub fn silent(socket: &Path) -> UnixHttp {
    UnixHttp::serve(socket, |_| Answer::Silence)
}

/// Answers with what is no HTTP.
#[must_use]
pub fn rubbish(socket: &Path) -> UnixHttp {
    UnixHttp::serve(socket, |_| Answer::Rubbish(b"\x1b[2J\x00\xff\xfe rubbish \x07\r\n\r\n".repeat(100)))
}

/// Answers with HTTP and JSON, but of another world.
#[must_use]
pub fn other_world(socket: &Path) -> UnixHttp {
    UnixHttp::serve(socket, |_| Answer::Json(200, r#"{"ID":7,"Swarm":"\u001b[31m","Containers":"many"}"#.to_owned()))
}

/// A proxy before a socket, which lets nobody through.
#[must_use]
pub fn refusing(socket: &Path) -> UnixHttp {
    UnixHttp::serve(socket, |_| Answer::Json(403, r#"{"message":"not for you \u001b[5m"}"#.to_owned()))
}

/// An engine with these containers, as `/containers/json` lists them. None of them has a process.
///
/// # Panics
/// Where its folder cannot be made.
#[must_use]
pub fn with_containers(folder: &Path, containers: Vec<Value>) -> UnixHttp {
    let root = folder.join("engine");
    fs::create_dir_all(root.join("volumes")).unwrap_or_else(|error| panic!("{error}"));
    let info = json!({ "ID": "fake", "ServerVersion": "20.10.0-fake", "DockerRootDir": root,
        "Swarm": { "LocalNodeState": "inactive", "ControlAvailable": false } });
    UnixHttp::serve(&folder.join("fake.sock"), move |asked| answer(asked, &info, &containers))
}

fn answer(asked: &Asked, info: &Value, containers: &[Value]) -> Answer {
    let ok = |value: &Value| Answer::Json(200, value.to_string());
    match asked.path.as_str() {
        "/_ping" => Answer::Json(200, "OK".to_owned()),
        "/info" => ok(info),
        "/events" => Answer::Endless,
        "/volumes" => ok(&json!({ "Volumes": [], "Warnings": null })),
        "/containers/json" => Answer::Json(200, Value::from(containers.to_vec()).to_string()),
        path => {
            let id = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json")).unwrap_or_default();
            match containers.iter().find(|one| one["Id"] == id) {
                Some(one) => ok(&json!({ "Id": id, "RestartCount": 2, "State": { "Status": one["State"], "Pid": 0,
                    "ExitCode": 137, "OOMKilled": false, "StartedAt": "2026-01-02T03:04:05Z" } })),
                None => Answer::Json(404, r#"{"message":"no such container"}"#.to_owned()),
            }
        }
    }
}
