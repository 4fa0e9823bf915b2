//! Calls of any method with an empty message, to see whether the gate lets them through.

use std::{error::Error as _, fs, path::Path, sync::Arc, time::Duration};

use mainstay_common::{
    ClusterId,
    identity::server_name,
    process::{
        context::Context,
        tls::{Channel, Credentials, channel, client_config, dial, provider},
    },
};
use rustls::{ClientConfig, RootCertStore, client::Resumption, version::TLS13};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};

/// Longest wait for a connection or an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Somebody with a certificate, or without one.
#[derive(Clone, Debug)]
pub struct Caller {
    address: String,
    server_name: String,
    config: Arc<ClientConfig>,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The service answered, be it with an objection to the empty message.
    Passed,
    /// The gate said no.
    Refused(Code),
    /// There was no connection to call on.
    NoConnection,
}

/// The credentials of a context file.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn of_context(file: &Path) -> Credentials {
    let context = Context::load(file).unwrap_or_else(|error| panic!("{error}"));
    Credentials { ca: context.ca, certificate: context.certificate, key: context.key }
}

/// The credentials in a data directory: `agent` or `replica`.
///
/// # Panics
/// Where they cannot be read.
#[must_use]
pub fn of_folder(folder: &Path, role: &str) -> Credentials {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Credentials { ca: read("ca.crt"), certificate: read(&format!("{role}.crt")), key: read(&format!("{role}.key")) }
}

impl Caller {
    /// Somebody with these credentials.
    ///
    /// # Panics
    /// Where they are none.
    #[must_use]
    pub fn with(address: &str, cluster: &ClusterId, credentials: &Credentials) -> Self {
        let config = client_config(credentials).unwrap_or_else(|error| panic!("{error}"));
        Self { address: address.to_owned(), server_name: server_name(cluster), config }
    }

    /// Somebody without a certificate.
    ///
    /// # Panics
    /// Where the CA (PEM) is none.
    #[must_use]
    pub fn anonymous(address: &str, cluster: &ClusterId, ca: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a CA");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Self { address: address.to_owned(), server_name: server_name(cluster), config: Arc::new(config) }
    }

    /// The same at another address.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// A TLS connection, for whoever speaks HTTP/2 by hand.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, String> {
        let stream = dial(&self.address, &self.server_name, Arc::clone(&self.config), ANSWER).await;
        stream.map_err(|error| error.to_string())
    }

    /// The client's half of a handshake, for whoever speaks TLS by hand.
    ///
    /// # Panics
    /// Where the server's name is none.
    #[must_use]
    pub fn client(&self) -> rustls::ClientConnection {
        let name = self.server_name.clone().try_into().expect("a name");
        rustls::ClientConnection::new(Arc::clone(&self.config), name).expect("a configuration that fits")
    }

    /// A connection for calls.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn channel(&self) -> Result<Channel, String> {
        channel(self.connect().await?).await.map_err(|error| error.to_string())
    }

    /// Dials and calls.
    pub async fn call_anew(&self, path: &str) -> Answer {
        match self.channel().await {
            Ok(channel) => call(channel, path).await,
            Err(_) => Answer::NoConnection,
        }
    }
}

/// Calls a method (`/package.Service/Method`) with one empty message.
///
/// # Panics
/// Where no answer comes.
pub async fn call(channel: Channel, path: &str) -> Answer {
    let asked = async {
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(Status::from_error)?;
        let path = PathAndQuery::try_from(path).map_err(|error| Status::from_error(error.into()))?;
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        // On the wire a unary call is a stream of one message.
        let answer = grpc.streaming(Request::new(tokio_stream::iter([()])), path, codec).await?;
        answer.into_inner().message().await
    };
    let answer = tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| panic!("{path}: no answer"));
    match answer {
        Ok(_) => Answer::Passed,
        Err(status) if status.source().is_some() => Answer::NoConnection,
        Err(status) => {
            let refusals = [Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented, Code::Unavailable];
            if refusals.contains(&status.code()) { Answer::Refused(status.code()) } else { Answer::Passed }
        }
    }
}
