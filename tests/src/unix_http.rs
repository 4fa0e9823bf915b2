//! Somebody who speaks HTTP on a unix socket, well or badly: a stand-in for an engine or for one of its plugins.

use std::{
    fmt::Debug,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Path without the API's version and without what follows a question mark.
    pub path: String,
    /// Body.
    pub body: String,
}

/// What is sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// JSON with a status.
    Json(u16, String),
    /// Headers of a stream, and nothing after them.
    Endless,
    /// Nothing at all; the connection stays open.
    Silence,
    /// These bytes, and the connection is closed.
    Rubbish(Vec<u8>),
}

/// The listener; it ends with this value.
#[derive(Debug)]
pub struct UnixHttp {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl UnixHttp {
    /// Listens there; every request gets what `answer` says.
    ///
    /// # Panics
    /// Where nobody may listen there.
    #[must_use]
    pub fn serve(path: &Path, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let socket = UnixListener::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let ends = Arc::new(AtomicBool::new(false));
        let (ended, answer) = (Arc::clone(&ends), Arc::new(answer));
        let listener = thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let answer = Arc::clone(&answer);
                // It ends when the other side goes.
                thread::spawn(move || talk(&stream, &*answer));
            }
        });
        Self { path: path.to_owned(), ends, listener: Some(listener) }
    }
}

impl Drop for UnixHttp {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // The listener wakes up by a last connection.
        drop(UnixStream::connect(&self.path));
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}

/// Serves one connection, until the other side has enough.
fn talk(stream: &UnixStream, answer: &impl Fn(&Asked) -> Answer) {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while let Some(asked) = read(&mut reader) {
        let said = match answer(&asked) {
            Answer::Json(status, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: ");
                writer.write_all(format!("{head}{length}\r\n\r\n{body}").as_bytes())
            }
            Answer::Endless => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                writer.write_all(head.as_bytes())
            }
            Answer::Silence => Ok(()),
            Answer::Rubbish(bytes) => {
                // Whoever does not want to hear it has closed the connection.
                drop(writer.write_all(&bytes));
                return;
            }
        };
        if said.is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<&UnixStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let target = line.split(' ').nth(1)?.split('?').next()?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let versioned = target.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned()));
    Some(Asked { path: versioned.unwrap_or(target), body: String::from_utf8_lossy(&body).into_owned() })
}
