//! What watching a machine costs, ours and others' side by side: 50 running containers, one rclone mount, a reading
//! every 10 s. Each is on alone, in turn, in windows of a minute; so is nobody, for what the engine does by itself.

#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mainstay_tests::{
    Cluster, Daemon, DockerLab, Program, RcloneLab,
    bars::Bars,
    cgroup::{Group, Groups, processes_naming},
    docker_lab, eventually,
    machine::{Need, free_port, has},
    shell::sh,
};

const CONTAINERS: usize = 50;
const INTERVAL: Duration = Duration::from_secs(10);
/// Whatever is done once a minute is in every window once.
const WINDOW: Duration = Duration::from_secs(60);
/// What is done only at the start is over by then.
const WARM_UP: Duration = Duration::from_secs(15);
const STARTS: usize = 7;
const MINUTE: f64 = 60.0;

/// The bars.
const PSS_MIB: f64 = 16.0;
const CPU_FOR_CONTAINERS_MS: f64 = 30.0;
const FIRST_SAMPLE_MS: f64 = 300.0;

/// Who is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Nobody,
    Agent,
    NodeExporter,
    Netdata,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Nobody, Self::Agent, Self::NodeExporter, Self::Netdata];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Agent => "mainstay-agent",
            Self::NodeExporter => "node_exporter",
            Self::Netdata => "netdata",
        }
    }
}

/// What one subject cost in its windows.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    span: Duration,
    cpu: Duration,
    engine_cpu: Duration,
    wire_bytes: u64,
    /// The most of all windows.
    pss_bytes: u64,
}

impl Cost {
    fn per_minute(&self, cost: f64) -> f64 {
        cost * MINUTE / self.span.as_secs_f64()
    }

    fn cpu_ms(&self) -> f64 {
        self.per_minute(self.cpu.as_secs_f64() * 1_000.0)
    }

    fn engine_ms(&self) -> f64 {
        self.per_minute(self.engine_cpu.as_secs_f64() * 1_000.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes of a few minutes")]
    fn wire_kb(&self) -> f64 {
        self.per_minute(self.wire_bytes as f64 / 1_000.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "memory of a few processes")]
    fn pss_mib(&self) -> f64 {
        self.pss_bytes as f64 / f64::from(1 << 20)
    }
}

fn main() -> ExitCode {
    let mut bars = Bars::default();
    let needs = [&docker_lab::NEEDS[..], &RcloneLab::NEEDS, &OTHERS].concat();
    if has(&needs) {
        measure(minutes(), &mut bars);
    }
    bars.end()
}

/// Those whom we are compared with, and who tells the bytes of a connection.
const OTHERS: [Need; 3] = [Need::Tool("prometheus-node-exporter"), Need::Tool("netdata"), Need::Tool("ss")];

/// `--minutes N`; cargo adds words of its own.
fn minutes() -> u32 {
    let mut words = env::args().skip_while(|word| word != "--minutes").skip(1);
    words.next().map_or(5, |word| word.parse().unwrap_or_else(|_| panic!("--minutes {word:?} is no number")))
}

fn measure(minutes: u32, bars: &mut Bars) {
    let groups = Groups::make("mainstay-footprint");
    let docker = DockerLab::start();
    for number in 0..CONTAINERS {
        docker.run(&format!("sleeper-{number}"), &[], &[]);
    }
    let rclone = RcloneLab::open();
    let mount = rclone.mount("files", &["--vfs-cache-mode", "writes"]);
    let mut cluster = Cluster::found();
    let lab = groups.group("lab");
    for pid in [mount.pid(), cluster.coordinator().pid()] {
        lab.take(pid).unwrap_or_else(|error| panic!("{error}"));
    }
    cluster.enroll("n1");
    let engine = groups.group("engine");
    // A shim for every container runs beside the engine whoever watches, and its noise is larger than what we look for.
    let shims = processes_naming("containerd-shim");
    for pid in processes_naming(&format!("/{}/exec", docker.network())) {
        if !shims.contains(&pid) {
            // Some helper may have ended since.
            engine.take(pid).unwrap_or(());
        }
    }
    assert_eq!(engine.pids().len(), 2, "dockerd and containerd");
    println!(
        "{CONTAINERS} containers, one rclone mount, a reading every {INTERVAL:?}, {minutes} windows of {WINDOW:?} each"
    );

    let bench = Bench { docker: &docker, cluster: &cluster, group: groups.group("subject"), engine };
    let first = bench.first_samples();
    println!("first samples after {first:.0?} ms");
    let mut costs = Subject::ALL.map(|subject| (subject, Cost::default()));
    for minute in 1..=minutes {
        for (subject, cost) in &mut costs {
            let before = *cost;
            bench.window(*subject, cost);
            println!(
                "window {minute} {}: own {:.1} ms, engine {:.1} ms, {:.1} MiB",
                subject.name(),
                (cost.cpu - before.cpu).as_secs_f64() * 1_000.0,
                (cost.engine_cpu - before.engine_cpu).as_secs_f64() * 1_000.0,
                cost.pss_mib()
            );
        }
    }
    report(&costs, &first, bars);
}

struct Bench<'a> {
    docker: &'a DockerLab,
    cluster: &'a Cluster,
    group: Group,
    engine: Group,
}

/// A subject that is on.
struct On<'a> {
    subject: Subject,
    group: &'a Group,
    _daemon: Option<Daemon>,
    scraper: Option<Scraper>,
}

impl Bench<'_> {
    /// Milliseconds from the start of `mainstay-agent run` to its first accepted sample, in order.
    fn first_samples(&self) -> Vec<f64> {
        let accepted = || {
            let page = get(&self.cluster.http, "/metrics");
            let page = String::from_utf8_lossy(&page).into_owned();
            let count = page.lines().find_map(|line| line.strip_prefix("mainstay_coordinator_samples_total "));
            count.and_then(|count| count.parse::<f64>().ok()).unwrap_or_else(|| panic!("no count of samples: {page}"))
        };
        let mut first = Vec::new();
        for _ in 0..STARTS {
            let before = accepted();
            let begun = Instant::now();
            let daemon = Daemon::start("agent", &mut self.agent());
            while accepted() <= before {
                assert!(begun.elapsed() < Duration::from_secs(30), "no sample: {}", daemon.said());
                thread::park_timeout(Duration::from_millis(1));
            }
            first.push(begun.elapsed().as_secs_f64() * 1_000.0);
            daemon.stop();
        }
        first.sort_by(f64::total_cmp);
        first
    }

    /// One window of a subject.
    fn window(&self, subject: Subject, cost: &mut Cost) {
        let on = self.start(subject);
        wait(WARM_UP);
        let read = || (Instant::now(), self.group.cpu(), self.engine.cpu(), on.wire_bytes());
        let before = read();
        wait(WINDOW);
        let after = read();
        cost.span += after.0 - before.0;
        cost.cpu += after.1 - before.1;
        cost.engine_cpu += after.2 - before.2;
        cost.wire_bytes += after.3 - before.3;
        cost.pss_bytes = cost.pss_bytes.max(self.group.pss_bytes());
    }

    fn start(&self, subject: Subject) -> On<'_> {
        let (command, scraped) = match subject {
            Subject::Nobody => (None, None),
            Subject::Agent => (Some(self.agent()), None),
            Subject::NodeExporter => {
                let address = format!("127.0.0.1:{}", free_port());
                let mut command = Command::new("prometheus-node-exporter");
                command.arg(format!("--web.listen-address={address}"));
                (Some(command), Some(address))
            }
            Subject::Netdata => (Some(self.netdata()), None),
        };
        let daemon = command.map(|command| Daemon::start(subject.name(), &mut self.group.command(&command)));
        On { subject, group: &self.group, _daemon: daemon, scraper: scraped.map(Scraper::start) }
    }

    fn agent(&self) -> Command {
        let mut run = Program::Agent.command();
        run.arg("run").arg("--data-dir").arg(self.cluster.agent_folder("n1"));
        run.args(["--interval", "10s", "--docker-socket", &self.docker.socket_text()]);
        run
    }

    /// As Debian ships it, in a folder of its own, and without a word to its makers.
    fn netdata(&self) -> Command {
        let folder = self.cluster.folder().join("netdata");
        let at = folder.display();
        for name in ["config", "cache", "lib/cloud.d", "log"] {
            fs::create_dir_all(folder.join(name)).unwrap_or_else(|error| panic!("{error}"));
        }
        let config = format!(
            "[global]\n run as user = root\n[directories]\n config = {at}/config\n cache = {at}/cache\n lib = {at}/lib\n \
             log = {at}/log\n home = {at}\n[web]\n bind to = 127.0.0.1:{}\n",
            free_port()
        );
        for (name, text) in [
            ("config/netdata.conf", config.as_str()),
            ("config/.opt-out-from-anonymous-statistics", ""),
            ("lib/cloud.d/cloud.conf", "[global]\n enabled = no\n"),
        ] {
            fs::write(folder.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let mut command = Command::new("netdata");
        command.arg("-D").arg("-c").arg(folder.join("config/netdata.conf")).arg("-P").arg(folder.join("netdata.pid"));
        let path = env::var_os("PATH").unwrap_or_default();
        command.env("PATH", path).env("DO_NOT_TRACK", "1");
        command.env("DOCKER_HOST", format!("unix://{}", self.docker.socket_text()));
        command
    }
}

impl On<'_> {
    /// Bytes that went to whoever collects the readings and back, without the headers of TCP.
    fn wire_bytes(&self) -> u64 {
        match (&self.scraper, self.subject) {
            (Some(scraper), _) => scraper.bytes.load(Ordering::Relaxed),
            (None, Subject::Agent) => self.group.pids().into_iter().map(socket_bytes).sum(),
            // netdata keeps its readings to itself.
            (None, Subject::Nobody | Subject::NodeExporter | Subject::Netdata) => 0,
        }
    }
}

impl Drop for On<'_> {
    fn drop(&mut self) {
        drop(self.scraper.take());
        self.group.end();
    }
}

/// Asks for `/metrics` at the interval, as Prometheus does.
struct Scraper {
    bytes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    fn start(address: String) -> Self {
        eventually("it serves", Duration::from_secs(20), || TcpStream::connect(&address).map(drop));
        let (bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (told, told_to_stop) = (Arc::clone(&bytes), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !told_to_stop.load(Ordering::Relaxed) {
                let page = get(&address, "/metrics");
                told.fetch_add(u64::try_from(page.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
                thread::park_timeout(INTERVAL);
            }
        });
        Self { bytes, stop, thread: Some(thread) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().unwrap_or(());
        }
    }
}

/// A whole answer of an http server, head and body.
fn get(address: &str, path: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(question.as_bytes())?;
        stream.read_to_end(&mut answer)
    });
    asked.unwrap_or_else(|error| panic!("{address}{path}: {error}"));
    answer
}

/// What the TCP connections of a process carried so far.
fn socket_bytes(pid: u32) -> u64 {
    let told = sh("ss -Htinp");
    let lines: Vec<&str> = told.lines().collect();
    let own = lines.windows(2).filter(|pair| pair[0].contains(&format!("pid={pid},"))).map(|pair| pair[1]);
    let counted = own.flat_map(str::split_whitespace).filter_map(|word| {
        let (name, bytes) = word.split_once(':')?;
        ["bytes_sent", "bytes_received"].contains(&name).then(|| bytes.parse::<u64>().ok()).flatten()
    });
    counted.sum()
}

fn wait(span: Duration) {
    let end = Instant::now() + span;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

fn report(costs: &[(Subject, Cost)], first: &[f64], bars: &mut Bars) {
    let of = |wanted: Subject| costs.iter().find(|(subject, _)| *subject == wanted).map(|(_, cost)| *cost);
    let [nobody, agent, exporter] =
        [Subject::Nobody, Subject::Agent, Subject::NodeExporter].map(|subject| of(subject).unwrap_or_default());
    println!("\n{:<16}{:>10}{:>14}{:>19}{:>15}", "", "PSS MiB", "CPU ms/min", "in dockerd ms/min", "wire kB/min");
    for (subject, cost) in costs {
        let caused = cost.engine_ms() - nobody.engine_ms();
        let (name, pss, cpu, wire) = (subject.name(), cost.pss_mib(), cost.cpu_ms(), cost.wire_kb());
        if *subject == Subject::Nobody {
            println!("{name:<16}{:>10}{:>14}{:>19.1}{:>15}", "-", "-", cost.engine_ms(), "-");
        } else {
            println!("{name:<16}{pss:>10.1}{cpu:>14.1}{caused:>+19.1}{wire:>15.1}");
        }
    }
    let (median, worst) = (first[first.len() / 2], first[first.len() - 1]);
    println!("first sample of mainstay-agent: median {median:.0} ms, worst {worst:.0} ms of {} starts\n", first.len());
    // Noise may make the engine's work with us less than without.
    let ours = agent.cpu_ms() + (agent.engine_ms() - nobody.engine_ms()).max(0.0);
    bars.at_most("pss_mib", agent.pss_mib(), PSS_MIB);
    bars.at_most("cpu_ms_per_minute", ours, exporter.cpu_ms() / 2.0 + CPU_FOR_CONTAINERS_MS);
    bars.at_most("first_sample_ms", worst, FIRST_SAMPLE_MS);
}
