//! A Docker Swarm of three machines: each an engine in a network of its own, all on one bridge that nobody else sees.

use std::thread;

use crate::{DockerLab, caretaker::Caretaker, docker_lab, machine::Need, shell::sh};

/// Machines in a Swarm.
pub const SIZE: usize = 3;
/// What the machine must have besides: engines in a Swarm set rules for their networks, whatever they are told.
pub const NEEDS: [Need; 1] = [Need::Tool("iptables")];

/// The Swarm; everything ends with this value. The first machine is its manager.
#[derive(Debug)]
pub struct SwarmLab {
    /// `node1` and so on.
    pub nodes: Vec<DockerLab>,
    _bridge: Caretaker,
}

impl SwarmLab {
    /// All machines have joined.
    ///
    /// # Panics
    /// Where one does not come up, or does not join.
    #[must_use]
    pub fn start() -> Self {
        let machines: Vec<_> =
            (1..=SIZE).map(|number| thread::spawn(move || DockerLab::start_as(&format!("node{number}")))).collect();
        let nodes: Vec<DockerLab> = machines
            .into_iter()
            .map(|machine| machine.join().unwrap_or_else(|_| panic!("a machine did not come up")))
            .collect();
        let bridge = format!("{}-bridge", nodes[0].network());
        let caretaker = Caretaker::hire("ip netns delete \"$1\"", &[&bridge]);
        drop(sh(&format!("ip netns add {bridge} && ip -n {bridge} link add br0 type bridge")));
        for (node, number) in nodes.iter().zip(1..) {
            let network = node.network();
            // A machine of a Swarm without a default route finds no address of its own.
            drop(sh(&format!(
                "ip -n {bridge} link add p{number} type veth peer name eth0 netns {network} &&
                 ip -n {bridge} link set p{number} master br0 up &&
                 ip -n {network} addr add {}/24 dev eth0 && ip -n {network} link set eth0 up &&
                 ip -n {network} route add default via 10.77.0.254",
                address(number)
            )));
        }
        drop(sh(&format!("ip -n {bridge} link set br0 up")));
        let lab = Self { nodes, _bridge: caretaker };
        lab.join();
        lab
    }

    fn join(&self) {
        let own =
            |number| ["--advertise-addr".to_owned(), address(number), "--listen-addr".to_owned(), address(number)];
        let words = |verb: &[&str], number| -> Vec<String> {
            verb.iter().map(|word| (*word).to_owned()).chain(own(number)).collect()
        };
        let run = |node: &DockerLab, words: &[String]| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            node.docker(&words).done()
        };
        drop(run(&self.nodes[0], &words(&["swarm", "init"], 1)));
        let token = self.nodes[0].docker(&["swarm", "join-token", "-q", "worker"]).done();
        let manager = format!("{}:2377", address(1));
        for (node, number) in self.nodes.iter().zip(1..).skip(1) {
            let mut join = words(&["swarm", "join", "--token", token.trim()], number);
            join.push(manager.clone());
            drop(run(node, &join));
        }
    }

    /// Its manager.
    #[must_use]
    pub fn manager(&self) -> &DockerLab {
        &self.nodes[0]
    }

    /// Makes a service of the labs' image, without waiting for it.
    ///
    /// # Panics
    /// Where the manager refuses.
    pub fn serve(&self, name: &str, flags: &[&str]) {
        let begin = ["service", "create", "-d", "--no-resolve-image", "--stop-signal", "KILL", "--name", name];
        drop(self.manager().docker(&[&begin[..], flags, &[docker_lab::IMAGE]].concat()).done());
    }
}

/// The address of a machine; the network is the lab's own.
fn address(number: usize) -> String {
    format!("10.77.0.{number}")
}
