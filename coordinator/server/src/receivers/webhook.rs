//! The webhook: a `POST` with JSON, and `Idempotency-Key` to know a repetition by.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use mainstay_common::{process, text::Shown};
use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;

use super::{Answer, Client, InvalidUrl, Message, Target, URL_MAX_BYTES, client::Stuck};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A webhook as it was declared.
#[derive(Clone, Debug)]
pub struct Webhook(Url);

#[derive(Clone, Debug)]
enum Url {
    /// `url`
    Declared(Box<Target>),
    /// `url_file`: every replica has its own, and it is read anew for each message.
    InFile { path: PathBuf, allow_private_address: bool },
}

/// Why a `url_file` is refused when it is declared. Its content is looked at when something is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrlFile {
    /// A replica's working directory is nobody's business.
    #[error("url_file must be an absolute path, the same on every replica")]
    Relative,
}

impl Webhook {
    /// A webhook with its `url` in the declaration.
    ///
    /// # Errors
    /// [`InvalidUrl`], to be told to whoever declares it.
    pub fn at(url: &str, allow_private_address: bool) -> Result<Self, InvalidUrl> {
        Target::parse(url, allow_private_address).map(|target| Self(Url::Declared(Box::new(target))))
    }

    /// A webhook whose URL stands in a file on every replica.
    ///
    /// # Errors
    /// [`InvalidUrlFile`], to be told to whoever declares it.
    pub fn in_file(path: impl Into<PathBuf>, allow_private_address: bool) -> Result<Self, InvalidUrlFile> {
        let path = path.into();
        if path.is_absolute() {
            Ok(Self(Url::InFile { path, allow_private_address }))
        } else {
            Err(InvalidUrlFile::Relative)
        }
    }

    /// Posts one message. Everything that can come right without a new declaration is tried again: a name's addresses,
    /// a certificate, a file.
    pub(super) async fn send(&self, client: &Client, message: &Message<'_>) -> Answer {
        let deadline = Instant::now() + client.limits.total;
        let read;
        let target = match &self.0 {
            Url::Declared(target) => target,
            Url::InFile { path, allow_private_address } => {
                match from_file(client, path, *allow_private_address).await {
                    Ok(target) => {
                        read = target;
                        &read
                    }
                    Err(why) => {
                        return Answer::none(format!("url_file {}: {why}", Shown::new(path.as_os_str().as_bytes())));
                    }
                }
            }
        };
        match client.exchange(target, request(message), deadline).await {
            Ok(head) => Answer::of(target, &head, process::now()),
            Err(why) => Answer::none(format!("{target}: {why}")),
        }
    }
}

fn request(message: &Message<'_>) -> Request<Full<Bytes>> {
    let key = HeaderValue::from_str(message.key.as_str()).expect("a key is made of characters that a header takes");
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(message.json)));
    *request.method_mut() = http::Method::POST;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(IDEMPOTENCY_KEY, key);
    request
}

/// Why a `url_file` gave no URL. Its content is never repeated.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("it is no regular file")]
    NoFile,
    #[error("it has more than {URL_MAX_BYTES} bytes: it must hold one URL and nothing else")]
    TooLong,
    #[error("it is no UTF-8 text: it must hold one URL and nothing else")]
    NotText,
    #[error("it is empty")]
    Empty,
    #[error("it has more than one line: it must hold one URL and nothing else")]
    Lines,
    #[error("{0}")]
    Url(#[from] InvalidUrl),
    #[error("{0}")]
    Stuck(#[from] Stuck),
}

async fn from_file(client: &Client, path: &Path, allow_private_address: bool) -> Result<Target, FileError> {
    let file = path.to_owned();
    let text = client.aside(client.limits.url_file, move || read_url(&file)).await??;
    Ok(Target::parse(&text, allow_private_address)?)
}

fn read_url(path: &Path) -> Result<String, FileError> {
    // Opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
    if !file.metadata()?.is_file() {
        return Err(FileError::NoFile);
    }
    let mut bytes = Vec::new();
    let over = u64::try_from(URL_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(over).read_to_end(&mut bytes)?;
    if bytes.len() > URL_MAX_BYTES {
        return Err(FileError::TooLong);
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText)?;
    match text.trim() {
        "" => Err(FileError::Empty),
        url if url.contains(['\n', '\r']) => Err(FileError::Lines),
        url => Ok(url.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_url_file_holds_one_url() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        let read = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            read_url(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"  https://chat.example/s3cret\r\n\n").as_deref(), Ok("https://chat.example/s3cret"));
        assert_eq!(read(&[b'x'; URL_MAX_BYTES]).map(|url| url.len()), Ok(URL_MAX_BYTES));
        for (text, why) in [
            (&b""[..], "it is empty"),
            (b" \n ", "it is empty"),
            (b"https://a.example/\nhttps://b.example/", "it has more than one line: it must hold"),
            (b"\xff\xfe", "it is no UTF-8 text: it must hold"),
            (&[b'x'; URL_MAX_BYTES + 1], "it has more than 4096 bytes: it must hold"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.starts_with(why), "{refused}");
        }
    }

    #[test]
    fn only_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        for path in [folder.path(), &pipe, Path::new("/dev/zero")] {
            assert!(matches!(read_url(path), Err(FileError::NoFile)), "{}", path.display());
        }
        assert!(matches!(read_url(&folder.path().join("none")), Err(FileError::Unreadable(_))));
    }

    #[test]
    fn a_url_file_has_an_absolute_path() {
        assert_eq!(Webhook::in_file("hook.url", false).unwrap_err(), InvalidUrlFile::Relative);
        assert!(Webhook::in_file("/etc/mainstay/hook.url", false).is_ok());
    }
}
