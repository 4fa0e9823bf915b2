//! A replica in a few lines: real TLS and real protos, nothing remembered but what a test asks for.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use mainstay_common::{TokenId, identity::server_name, process::tls, token};
use mainstay_proto::v1::{
    self as pb, agent_server, enrol_server, instruction::Instruction as Say, report::Report as Said,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status, Streaming};

/// A cluster CA.
pub(crate) struct Cluster {
    pub id: String,
    params: CertificateParams,
    key: KeyPair,
    der: CertificateDer<'static>,
    pem: String,
}

impl Cluster {
    pub(crate) fn new(id: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.subject_alt_names = vec![uri(&format!("spiffe://{id}"))];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { id: id.to_owned(), params, key, der, pem }
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn token(&self) -> String {
        let id: TokenId = "t1".parse().unwrap();
        let ca_pin = tls::spki_sha256(&self.der).unwrap();
        token::JoinToken { role: "agent".into(), id, secret: token::Secret([7; 16]), ca_pin }.to_string()
    }

    /// A certificate whose life began an hour ago and ends a minute before `left` has passed: with nothing left, it ran
    /// out already.
    fn sign(&self, csr: &[u8], node: &str, left: Duration) -> String {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        csr.params = CertificateParams::default();
        csr.params.subject_alt_names = vec![uri(&format!("spiffe://{}/agent/{node}", self.id))];
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        csr.params.not_before = (SystemTime::now() - Duration::from_secs(3_600)).into();
        csr.params.not_after = (SystemTime::now() + left - Duration::from_secs(60)).into();
        csr.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().pem() + &self.pem
    }

    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([server_name(&self.id.parse().unwrap())]).unwrap();
        params.subject_alt_names.push(uri(&format!("spiffe://{}/replica/r1", self.id)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![leaf.der().clone(), self.der.clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// What the replica does and what it saw.
#[derive(Clone)]
pub(crate) struct Replica {
    pub cluster: Arc<Cluster>,
    pub address: SocketAddr,
    /// Life left of certificates that `Redeem` gives.
    pub left: Duration,
    /// So many answers of `Redeem` get lost.
    pub lose: Arc<AtomicUsize>,
    /// Refuses sessions: the node was removed.
    pub removed: Arc<AtomicBool>,
    /// The generation it says it is of.
    pub generation: Arc<AtomicU64>,
    pub redeemed: Arc<Mutex<Vec<pb::RedeemRequest>>>,
    pub renewed: Arc<AtomicUsize>,
    pub reenrolled: Arc<Mutex<Vec<pb::ReenrolRequest>>>,
    /// What agents told of their certificates.
    pub holdings: watch::Sender<Vec<pb::Holding>>,
    pub hellos: watch::Sender<usize>,
    pub samples: watch::Sender<Vec<pb::Sample>>,
    /// Cancelling it cuts every session.
    pub cut: Arc<Mutex<CancellationToken>>,
}

impl Replica {
    /// Starts one that listens until the handle is dropped.
    pub(crate) async fn start(cluster: Cluster, left: Duration) -> (Self, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replica = Self {
            cluster: Arc::new(cluster),
            address: listener.local_addr().unwrap(),
            left,
            lose: Arc::default(),
            removed: Arc::default(),
            generation: Arc::default(),
            redeemed: Arc::default(),
            renewed: Arc::default(),
            reenrolled: Arc::default(),
            holdings: watch::Sender::new(Vec::new()),
            hellos: watch::Sender::new(0),
            samples: watch::Sender::new(Vec::new()),
            cut: Arc::default(),
        };
        let serving = AbortOnDropHandle::new(tokio::spawn(replica.clone().serve(listener)));
        (replica, serving)
    }

    async fn serve(self, listener: TcpListener) {
        let acceptor = TlsAcceptor::from(self.cluster.server());
        let (connections, incoming) = mpsc::channel(8);
        let accepting = async {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, connections) = (acceptor.clone(), connections.clone());
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    // tonic wants a stream that it knows: a pipe stands before ours.
                    let (mut here, there) = tokio::io::duplex(64 * 1024);
                    if connections.send(Ok::<_, std::io::Error>(there)).await.is_ok() {
                        let _ended = tokio::io::copy_bidirectional(&mut tls, &mut here).await;
                    }
                });
            }
        };
        let serving = tonic::transport::Server::builder()
            .add_service(enrol_server::EnrolServer::new(self.clone()))
            .add_service(agent_server::AgentServer::new(self.clone()))
            .serve_with_incoming(ReceiverStream::new(incoming));
        tokio::select! {
            () = accepting => {}
            served = serving => served.unwrap(),
        }
    }

    pub(crate) fn cut_sessions(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }
}

#[tonic::async_trait]
impl enrol_server::Enrol for Replica {
    async fn join(&self, _: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        Err(Status::unimplemented("no agent joins"))
    }

    async fn redeem(&self, request: Request<pb::RedeemRequest>) -> Result<Response<pb::RedeemResponse>, Status> {
        let request = request.into_inner();
        let certificate = self.cluster.sign(&request.csr, &request.name, self.left);
        self.redeemed.lock().unwrap().push(request);
        if self.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
            return Err(Status::unknown("the reply got lost"));
        }
        Ok(Response::new(pb::RedeemResponse {
            cluster_id: self.cluster.id.clone(),
            cluster: "home".into(),
            certificate,
            ca: self.cluster.pem.clone(),
            addresses: vec![self.address.to_string()],
            sent_at_ms: 0,
        }))
    }

    async fn reenrol(&self, request: Request<pb::ReenrolRequest>) -> Result<Response<pb::ReenrolResponse>, Status> {
        if self.removed.load(Ordering::Relaxed) {
            return Err(Status::permission_denied("node removed\nby anna\nenroll"));
        }
        let request = request.into_inner();
        let certificate = self.cluster.sign(&request.csr, "n1", Duration::from_secs(7 * 86_400));
        self.reenrolled.lock().unwrap().push(request);
        Ok(Response::new(pb::ReenrolResponse {
            certificate,
            ca: self.cluster.pem.clone(),
            addresses: vec![self.address.to_string()],
            sent_at_ms: 0,
            generation: self.generation.load(Ordering::Relaxed),
        }))
    }
}

#[tonic::async_trait]
impl agent_server::Agent for Replica {
    type SessionStream = ReceiverStream<Result<pb::Instruction, Status>>;

    async fn session(&self, request: Request<Streaming<pb::Report>>) -> Result<Response<Self::SessionStream>, Status> {
        if self.removed.load(Ordering::Relaxed) {
            return Err(Status::permission_denied("node removed\nby anna"));
        }
        let mut reports = request.into_inner();
        let (say, instructions) = mpsc::channel(4);
        let (replica, cut) = (self.clone(), self.cut.lock().unwrap().clone());
        tokio::spawn(async move {
            loop {
                let report = tokio::select! {
                    Some(Ok(report)) = reports.next() => report,
                    () = cut.cancelled() => {
                        let _told = say.send(Err(Status::unavailable("cut"))).await;
                        return;
                    }
                    else => return,
                };
                match report.report {
                    Some(Said::Hello(_)) => {
                        replica.hellos.send_modify(|hellos| *hellos += 1);
                        let welcome = pb::Welcome {
                            cluster: "home".into(),
                            replica: "r1".into(),
                            sent_at_ms: mainstay_common::process::now().0,
                            addresses: vec![replica.address.to_string()],
                            spread_ms: 20,
                            generation: replica.generation.load(Ordering::Relaxed),
                        };
                        let _told = say.send(Ok(pb::Instruction { instruction: Some(Say::Welcome(welcome)) })).await;
                        let issuer = tls::spki_sha256(&replica.cluster.der).unwrap().to_vec();
                        let trust = pb::Trust { version: 7, ca: replica.cluster.pem.clone(), issuer, spread_ms: 0 };
                        let _told = say.send(Ok(pb::Instruction { instruction: Some(Say::Trust(trust)) })).await;
                        let wish = pb::SwarmReporter { reports: true };
                        let _told = say.send(Ok(pb::Instruction { instruction: Some(Say::SwarmReporter(wish)) })).await;
                    }
                    Some(Said::Holding(holding)) => replica.holdings.send_modify(|all| all.push(holding)),
                    Some(Said::Sample(sample)) => replica.samples.send_modify(|samples| samples.push(sample)),
                    None => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(instructions)))
    }

    async fn renew(&self, request: Request<pb::AgentRenewRequest>) -> Result<Response<pb::AgentRenewResponse>, Status> {
        self.renewed.fetch_add(1, Ordering::Relaxed);
        let week = Duration::from_secs(7 * 86_400);
        let certificate = self.cluster.sign(&request.into_inner().csr, "n1", week);
        Ok(Response::new(pb::AgentRenewResponse { certificate }))
    }
}
