//! A network of a story's own: every machine in a namespace, all on one bridge, and links that fail as stories want.

use std::{
    fs::File,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{caretaker::Caretaker, machine::Need, shell::sh};

/// What the machine must have.
pub const NEEDS: [Need; 4] = [Need::Root, Need::Tool("ip"), Need::Tool("nsenter"), Need::Tool("iptables")];

/// Ends whatever runs on these machines, then takes them away; their links go with them, and what they kept.
const CLEAN: &str = r#"name=$1 folder=$2
networks() { ls /var/run/netns | grep "^$name[.]"; }
for round in $(seq 200); do
    found=$(for network in $(networks); do ip netns pids "$network"; done)
    [ -z "$found" ] && break
    kill -KILL $found
    sleep 0.05
done
for network in $(networks); do ip netns delete "$network"; done
rm -rf "$folder""#;

/// Machines on a bridge. The calling thread, and every program and thread that it starts from now on, is on a machine of
/// its own there, until this value is dropped.
#[derive(Debug)]
pub struct Networks {
    name: String,
    machines: u8,
    /// Where the thread was before.
    outside: File,
    folder: PathBuf,
    _caretaker: Caretaker,
}

/// A machine, and its address on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    namespace: String,
    /// Its address, without a port.
    pub address: String,
}

impl Networks {
    /// A bridge without machines.
    ///
    /// # Panics
    /// Where this is not root's machine.
    #[must_use]
    pub fn enter() -> Self {
        let folder = tempfile::Builder::new().prefix("msn-").tempdir().unwrap_or_else(|error| panic!("{error}")).keep();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let caretaker = Caretaker::hire(CLEAN, &[&name, &folder.to_string_lossy()]);
        let hub = format!("{name}.hub");
        drop(sh(&format!(
            "ip netns add {hub} && ip -n {hub} link set lo up && ip -n {hub} link add br0 type bridge &&
             ip -n {hub} addr add {}/24 dev br0 && ip -n {hub} link set br0 up",
            address(1)
        )));
        let outside = File::open("/proc/thread-self/ns/net").unwrap_or_else(|error| panic!("{error}"));
        let inside = File::open(format!("/var/run/netns/{hub}")).unwrap_or_else(|error| panic!("{error}"));
        let entered = move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network));
        entered.unwrap_or_else(|error| panic!("the bridge's namespace cannot be entered: {error}"));
        Self { name, machines: 0, outside, folder, _caretaker: caretaker }
    }

    /// A place for what the machines keep, which goes with them, however the story ends.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One more machine.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn add(&mut self) -> Machine {
        self.machines += 1;
        let (number, hub) = (self.machines, format!("{}.hub", self.name));
        let machine = Machine { namespace: format!("{}.{number}", self.name), address: address(number + 10) };
        let (network, at) = (&machine.namespace, &machine.address);
        drop(sh(&format!(
            "ip netns add {network} && ip -n {network} link set lo up &&
             ip -n {hub} link add p{number} type veth peer name eth0 netns {network} &&
             ip -n {hub} link set p{number} master br0 up &&
             ip -n {network} addr add {at}/24 dev eth0 && ip -n {network} link set eth0 up"
        )));
        machine
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        // The thread ends soon where it cannot go back.
        move_into_link_name_space(self.outside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap_or(());
    }
}

impl Machine {
    /// The same program on this machine.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        let mut there = Command::new("nsenter");
        there.arg(format!("--net=/var/run/netns/{}", self.namespace)).arg(command.get_program());
        there.args(command.get_args()).env_clear();
        there.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        there
    }

    /// Nothing from that machine arrives here any more; what this one sends still arrives there.
    ///
    /// # Panics
    /// Where the rule is not taken.
    pub fn hears_no_more(&self, from: &Self) {
        self.filter(&format!("-A INPUT -s {} -j DROP", from.address));
    }

    /// Of what arrives so many in a hundred packets are lost: whoever sent them notices late, and sends them again.
    ///
    /// # Panics
    /// Where the rule is not taken.
    pub fn loses(&self, percent: u32) {
        let probability = f64::from(percent) / 100.0;
        self.filter(&format!("-A INPUT -m statistic --mode random --probability {probability} -j DROP"));
    }

    /// Everything arrives again.
    ///
    /// # Panics
    /// Where the rules stay.
    pub fn hears_all(&self) {
        self.filter("-F INPUT");
    }

    fn filter(&self, rule: &str) {
        drop(sh(&format!("nsenter --net=/var/run/netns/{} iptables -w {rule}", self.namespace)));
    }

    /// Pulls the cable, or puts it back.
    ///
    /// # Panics
    /// Where there is no such link.
    pub fn link(&self, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        drop(sh(&format!("ip -n {} link set eth0 {state}", self.namespace)));
    }
}

fn address(number: u8) -> String {
    format!("10.78.0.{number}")
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::{eventually, machine::has, shell::try_sh, wait::holds};

    #[test]
    fn machines_hear_each_other_until_they_are_parted_and_nothing_is_left_of_them() {
        if !has(&NEEDS) {
            return;
        }
        let links = || sh("ip -o link");
        let outside = links();
        let mut networks = Networks::enter();
        assert_ne!(links(), outside, "the thread is elsewhere");
        let (one, other) = (networks.add(), networks.add());
        let listeners =
            [&one, &other].map(|machine| within(machine, || TcpListener::bind((machine.address.as_str(), 7)).unwrap()));
        let reaches = |from: &Machine, to: &TcpListener| {
            let (to, patience) = (to.local_addr().unwrap(), Duration::from_millis(500));
            within(from, || TcpStream::connect_timeout(&to, patience).is_ok())
        };
        let both = || [reaches(&one, &listeners[1]), reaches(&other, &listeners[0])];
        // Addresses are asked for anew where nobody answered for a while.
        let heals = |ask: &dyn Fn() -> [bool; 2]| {
            let all = || holds(ask() == [true, true], || "not yet".into());
            eventually("they hear each other", Duration::from_secs(20), all);
        };
        heals(&both);
        one.hears_no_more(&other);
        assert_eq!(both(), [false, false], "TCP needs both ways");
        one.hears_all();
        heals(&both);
        let here = |machine: &Machine| {
            let at: SocketAddr = format!("{}:7", machine.address).parse().unwrap();
            TcpStream::connect_timeout(&at, Duration::from_millis(500)).is_ok()
        };
        one.link(false);
        assert_eq!([here(&one), here(&other)], [false, true]);
        one.link(true);
        heals(&|| [here(&one), here(&other)]);
        let (name, folder) = (networks.name.clone(), networks.folder().to_owned());
        assert!(folder.exists());
        drop(networks);
        assert!(!folder.exists());
        assert_eq!(links(), outside, "the thread is back");
        assert_eq!(try_sh(&format!("ls /var/run/netns | grep '^{name}[.]'")).stdout, "");
    }

    /// Does it on that machine: a socket stays where it was made.
    fn within<T: Send>(machine: &Machine, what: impl FnOnce() -> T + Send) -> T {
        let network = File::open(format!("/var/run/netns/{}", machine.namespace)).unwrap();
        let there = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            what()
        };
        thread::scope(|scope| scope.spawn(there).join().unwrap())
    }
}
