//! nginx with the replica's own certificate, to compare handshakes with.

use std::{fs, net::TcpStream, path::Path, process::Command, time::Duration};

use crate::{Cluster, Daemon, eventually, machine::free_port};

/// A running nginx: one worker, TLS 1.3, client certificates asked for and checked, no resumption.
#[derive(Debug)]
pub struct Nginx {
    /// Where it listens.
    pub address: String,
    daemon: Daemon,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts it with the replica's certificate and the cluster's CA.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn beside(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = format!("127.0.0.1:{}", free_port());
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(folder.path(), &cluster.coordinator_folder(), &address)).expect("a file");
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(&file).arg("-p").arg(folder.path()).args(["-g", "daemon off;"]);
        let daemon = Daemon::start("nginx", &mut nginx);
        eventually("nginx listens", Duration::from_secs(10), || TcpStream::connect(&address).map(drop));
        Self { address, daemon, _folder: folder }
    }

    /// Its master and its worker.
    ///
    /// # Panics
    /// Where the kernel does not tell.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let master = self.daemon.pid();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).expect("its children");
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([master]).collect()
    }
}

fn configuration(folder: &Path, keys: &Path, address: &str) -> String {
    let (folder, keys) = (folder.display(), keys.display());
    format!(
        "worker_processes 1;\n\
         user root;\n\
         pid {folder}/pid;\n\
         error_log {folder}/error.log crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {folder}/body;\n\
           proxy_temp_path {folder}/proxy;\n\
           fastcgi_temp_path {folder}/fastcgi;\n\
           uwsgi_temp_path {folder}/uwsgi;\n\
           scgi_temp_path {folder}/scgi;\n\
           server {{\n\
             listen {address} ssl http2 backlog=4096;\n\
             ssl_protocols TLSv1.3;\n\
             ssl_certificate {keys}/replica.crt;\n\
             ssl_certificate_key {keys}/replica.key;\n\
             ssl_client_certificate {keys}/ca.crt;\n\
             ssl_verify_client on;\n\
             ssl_session_cache off;\n\
             ssl_session_tickets off;\n\
           }}\n\
         }}\n"
    )
}
