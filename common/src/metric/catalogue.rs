//! Every metric there is: name, unit, kind, labels, help. Numbers travel over the wire: never change or re-use one.

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// The unit as it ends a metric's name; empty for a plain number.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

/// How a value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up, until it starts again at zero.
    Counter,
    /// One series per state, 1 for the one that holds.
    StateSet,
    /// Always 1; its labels tell.
    Info,
}

/// A metric's declaration.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its number on the wire.
    pub number: u16,
    /// Its name, with the unit and `_total` at the end.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// How it moves.
    pub kind: Kind,
    /// Labels that tell its series apart, `node` aside.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

impl Metric {
    /// The metric of that number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<&'static Self> {
        CATALOGUE.binary_search_by_key(&number, |metric| metric.number).ok().map(|at| CATALOGUE[at])
    }
}

macro_rules! catalogue {
    ($($number:literal $constant:ident $name:literal $unit:ident $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Metric = Metric {
                number: $number,
                name: concat!("mainstay_", $name),
                unit: Unit::$unit,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// All of them, by number.
        pub static CATALOGUE: &[&Metric] = &[$(&$constant),*];
    };
}

catalogue! {
    1 CPU_SECONDS_TOTAL "cpu_seconds_total" Seconds Counter ["mode"] "CPU time spent in each mode, over all CPUs.";
    2 BOOT_TIME_SECONDS "boot_time_seconds" Seconds Gauge [] "When the machine booted, as Unix time.";
    3 PROCS_RUNNING "procs_running" None Gauge [] "Processes that could run now.";
    4 PROCS_BLOCKED "procs_blocked" None Gauge [] "Processes that wait for a disk.";
    5 LOAD1 "load1" None Gauge [] "Load average over 1 minute.";
    6 LOAD5 "load5" None Gauge [] "Load average over 5 minutes.";
    7 LOAD15 "load15" None Gauge [] "Load average over 15 minutes.";
    8 MEMORY_TOTAL_BYTES "memory_total_bytes" Bytes Gauge [] "Memory of the machine.";
    9 MEMORY_AVAILABLE_BYTES "memory_available_bytes" Bytes Gauge [] "Memory that programs can still get without swapping.";
    10 MEMORY_CACHED_BYTES "memory_cached_bytes" Bytes Gauge [] "Page cache.";
    11 MEMORY_DIRTY_BYTES "memory_dirty_bytes" Bytes Gauge [] "Page cache not yet on disk.";
    12 SWAP_TOTAL_BYTES "swap_total_bytes" Bytes Gauge [] "Swap space.";
    13 SWAP_FREE_BYTES "swap_free_bytes" Bytes Gauge [] "Swap space not in use.";
    14 SWAP_IN_PAGES_TOTAL "swap_in_pages_total" None Counter [] "Pages read back from swap.";
    15 SWAP_OUT_PAGES_TOTAL "swap_out_pages_total" None Counter [] "Pages written to swap.";
    16 OOM_KILLS_TOTAL "oom_kills_total" None Counter [] "Processes the kernel killed for lack of memory.";
    17 PRESSURE_CPU_WAITING_SECONDS_TOTAL "pressure_cpu_waiting_seconds_total" Seconds Counter [] "Time in which some task waited for a CPU.";
    18 PRESSURE_MEMORY_WAITING_SECONDS_TOTAL "pressure_memory_waiting_seconds_total" Seconds Counter [] "Time in which some task waited for memory.";
    19 PRESSURE_IO_WAITING_SECONDS_TOTAL "pressure_io_waiting_seconds_total" Seconds Counter [] "Time in which some task waited for IO.";
    20 PRESSURE_MEMORY_STALLED_SECONDS_TOTAL "pressure_memory_stalled_seconds_total" Seconds Counter [] "Time in which all tasks waited for memory.";
    21 PRESSURE_IO_STALLED_SECONDS_TOTAL "pressure_io_stalled_seconds_total" Seconds Counter [] "Time in which all tasks waited for IO.";
    22 NETWORK_RECEIVE_BYTES_TOTAL "network_receive_bytes_total" Bytes Counter ["link"] "Bytes received.";
    23 NETWORK_TRANSMIT_BYTES_TOTAL "network_transmit_bytes_total" Bytes Counter ["link"] "Bytes sent.";
    24 NETWORK_RECEIVE_ERRORS_TOTAL "network_receive_errors_total" None Counter ["link"] "Packets received with errors.";
    25 NETWORK_TRANSMIT_ERRORS_TOTAL "network_transmit_errors_total" None Counter ["link"] "Packets that could not be sent.";
    26 NETWORK_RECEIVE_DROPS_TOTAL "network_receive_drops_total" None Counter ["link"] "Received packets that were dropped.";
    27 NETWORK_TRANSMIT_DROPS_TOTAL "network_transmit_drops_total" None Counter ["link"] "Packets to send that were dropped.";
    28 CLOCK_OFFSET_SECONDS "clock_offset_seconds" Seconds Gauge [] "How far the kernel says its clock is off.";
    29 CLOCK_SYNCHRONIZED "clock_synchronized" None Gauge [] "1 if the kernel's clock is kept in step, else 0.";
    30 UPTIME_SECONDS "uptime_seconds" Seconds Gauge [] "Time since boot.";
    31 REBOOT_REQUIRED "reboot_required" None Gauge [] "1 if the distribution asks for a reboot, else 0.";
    32 HOST_INFO "host_info" None Info ["hostname", "kernel", "os", "architecture"] "What the machine is.";
    33 CPUS "cpus" None Gauge [] "CPUs that are online.";
    40 DISK_TOTAL_BYTES "disk_total_bytes" Bytes Gauge ["mount", "device"] "Size of the filesystem.";
    41 DISK_USED_BYTES "disk_used_bytes" Bytes Gauge ["mount", "device"] "Used space, as df counts.";
    42 DISK_AVAILABLE_BYTES "disk_available_bytes" Bytes Gauge ["mount", "device"] "Space that users can still fill.";
    43 DISK_RESERVED_BYTES "disk_reserved_bytes" Bytes Gauge ["mount", "device"] "Free space that only root can fill.";
    44 DISK_INODES_TOTAL "disk_inodes_total" None Gauge ["mount", "device"] "Inodes of the filesystem.";
    45 DISK_INODES_USED "disk_inodes_used" None Gauge ["mount", "device"] "Inodes in use.";
    46 DISK_READONLY "disk_readonly" None Gauge ["mount", "device"] "1 if the filesystem itself is read-only, else 0.";
    47 DISK_READS_TOTAL "disk_reads_total" None Counter ["mount", "device"] "Reads completed.";
    48 DISK_WRITES_TOTAL "disk_writes_total" None Counter ["mount", "device"] "Writes completed.";
    49 DISK_READ_BYTES_TOTAL "disk_read_bytes_total" Bytes Counter ["mount", "device"] "Bytes read.";
    50 DISK_WRITTEN_BYTES_TOTAL "disk_written_bytes_total" Bytes Counter ["mount", "device"] "Bytes written.";
    51 DISK_IO_SECONDS_TOTAL "disk_io_seconds_total" Seconds Counter ["mount", "device"] "Time in which the device was busy.";
    52 DISK_ERRORS_TOTAL "disk_errors_total" None Counter ["mount", "device"] "Errors that the filesystem or device counted.";
    53 DISK_LAST_ERROR_TIMESTAMP_SECONDS "disk_last_error_timestamp_seconds" Seconds Gauge ["mount", "device"] "When the filesystem last counted an error.";
    54 DISK_RAID_DEGRADED_DISKS "disk_raid_degraded_disks" None Gauge ["mount", "device"] "Missing members of the software RAID below.";
    55 DISK_STATE "disk_state" None StateSet ["mount", "device"] "How the filesystem fares.";
    56 DISK_LATENCY_SECONDS "disk_latency_seconds" Seconds Gauge ["mount", "device"] "How long the last statfs took.";
    57 DISK_READ_SECONDS_TOTAL "disk_read_seconds_total" Seconds Counter ["mount", "device"] "Time that reads took, added up.";
    58 DISK_WRITE_SECONDS_TOTAL "disk_write_seconds_total" Seconds Counter ["mount", "device"] "Time that writes took, added up.";
    70 MOUNT_TOTAL_BYTES "mount_total_bytes" Bytes Gauge ["path", "source"] "Size that the mount tells.";
    71 MOUNT_USED_BYTES "mount_used_bytes" Bytes Gauge ["path", "source"] "Used space that the mount tells.";
    72 MOUNT_AVAILABLE_BYTES "mount_available_bytes" Bytes Gauge ["path", "source"] "Free space that the mount tells.";
    73 MOUNT_LATENCY_SECONDS "mount_latency_seconds" Seconds Gauge ["path", "source"] "How long the mount took to answer.";
    74 MOUNT_SINCE_TIMESTAMP_SECONDS "mount_since_timestamp_seconds" Seconds Gauge ["path", "source"] "When the mount came into its state.";
    75 MOUNT_STATE "mount_state" None StateSet ["path", "source"] "How the mount answers on this node.";
    76 MOUNT_WAITING "mount_waiting" None Gauge ["path", "source"] "Requests that wait for the FUSE process.";
    80 RCLONE_REMOTE_STATE "rclone_remote_state" None StateSet ["path", "source"] "How the remote behind the mount answers.";
    81 RCLONE_RC_STATE "rclone_rc_state" None StateSet ["path", "source"] "Whether rclone's remote control answers.";
    82 RCLONE_UPLOADS_QUEUED "rclone_uploads_queued" None Gauge ["path", "source"] "Files that wait for upload.";
    83 RCLONE_UPLOADS_ACTIVE "rclone_uploads_active" None Gauge ["path", "source"] "Files being uploaded.";
    84 RCLONE_UPLOADS_FAILING "rclone_uploads_failing" None Gauge ["path", "source"] "Files whose upload failed five times or more.";
    85 RCLONE_CACHE_USED_BYTES "rclone_cache_used_bytes" Bytes Gauge ["path", "source"] "Size of the VFS cache.";
    86 RCLONE_CACHE_MAX_BYTES "rclone_cache_max_bytes" Bytes Gauge ["path", "source"] "Limit of the VFS cache.";
    87 RCLONE_CACHE_FULL "rclone_cache_full" None Gauge ["path", "source"] "1 if the VFS cache ran out of space within 10 minutes, else 0.";
    88 RCLONE_ERRORS_TOTAL "rclone_errors_total" None Counter ["path", "source"] "Errors that rclone counted.";
    89 RCLONE_REMOTE_TOTAL_BYTES "rclone_remote_total_bytes" Bytes Gauge ["path", "source"] "Quota of the remote.";
    90 RCLONE_REMOTE_USED_BYTES "rclone_remote_used_bytes" Bytes Gauge ["path", "source"] "Used space of the remote.";
    91 RCLONE_REMOTE_FREE_BYTES "rclone_remote_free_bytes" Bytes Gauge ["path", "source"] "Free space of the remote.";
    92 RCLONE_CACHE_RESETS_FAILED "rclone_cache_resets_failed" None Gauge ["path", "source"] "Cache entries that could not be reset for lack of space.";
    100 CONTAINER_CPU_SECONDS_TOTAL "container_cpu_seconds_total" Seconds Counter ["container"] "CPU time used.";
    101 CONTAINER_THROTTLED_SECONDS_TOTAL "container_throttled_seconds_total" Seconds Counter ["container"] "Time held back by the CPU limit.";
    102 CONTAINER_MEMORY_USED_BYTES "container_memory_used_bytes" Bytes Gauge ["container"] "Memory in use without inactive page cache.";
    103 CONTAINER_MEMORY_LIMIT_BYTES "container_memory_limit_bytes" Bytes Gauge ["container"] "Memory limit; unknown where there is none.";
    104 CONTAINER_OOM_KILLS_TOTAL "container_oom_kills_total" None Counter ["container"] "Processes killed for lack of memory.";
    105 CONTAINER_BLOCK_READ_BYTES_TOTAL "container_block_read_bytes_total" Bytes Counter ["container"] "Bytes read from block devices.";
    106 CONTAINER_BLOCK_WRITTEN_BYTES_TOTAL "container_block_written_bytes_total" Bytes Counter ["container"] "Bytes written to block devices.";
    107 CONTAINER_NETWORK_RECEIVE_BYTES_TOTAL "container_network_receive_bytes_total" Bytes Counter ["container"] "Bytes received; unknown on the host's network.";
    108 CONTAINER_NETWORK_TRANSMIT_BYTES_TOTAL "container_network_transmit_bytes_total" Bytes Counter ["container"] "Bytes sent; unknown on the host's network.";
    109 CONTAINER_PIDS "container_pids" None Gauge ["container"] "Processes and threads.";
    110 CONTAINER_RESTARTS_TOTAL "container_restarts_total" None Counter ["container"] "Restarts by the engine.";
    111 CONTAINER_STATE "container_state" None StateSet ["container"] "What the engine says the container does.";
    112 CONTAINER_HEALTH "container_health" None StateSet ["container"] "What the container's health check says.";
    113 CONTAINER_INFO "container_info" None Info ["container", "image", "service", "stack"] "What the container is.";
    120 ENGINE_STATE "engine_state" None StateSet [] "Whether the container engine answers.";
    121 VOLUME_SIZE_BYTES "volume_size_bytes" Bytes Gauge ["volume"] "Space that the volume's files take, as du -x counts.";
    122 VOLUME_APPARENT_BYTES "volume_apparent_bytes" Bytes Gauge ["volume"] "Length of the volume's files.";
    123 VOLUME_MEASURED_TIMESTAMP_SECONDS "volume_measured_timestamp_seconds" Seconds Gauge ["volume"] "When the volume was measured.";
    124 VOLUME_IN_USE "volume_in_use" None Gauge ["volume"] "1 if a container uses the volume, else 0.";
    125 VOLUME_FILES "volume_files" None Gauge ["volume"] "Files and folders in the volume.";
    126 VOLUME_APPROXIMATE "volume_approximate" None Gauge ["volume"] "1 if hard links were too many to be counted once, else 0.";
    130 SWARM_STATE "swarm_state" None StateSet [] "What the engine says of its membership in a Swarm.";
    131 SWARM_MANAGER "swarm_manager" None Gauge [] "1 if this node is a Swarm manager, else 0.";
    132 SWARM_NODE_INFO "swarm_node_info" None Info ["swarm_node", "hostname", "role", "availability", "state", "reachability"] "A node as the Swarm's managers see it.";
    133 SWARM_SERVICE_REPLICAS_DESIRED "swarm_service_replicas_desired" None Gauge ["service"] "Tasks that a service should have.";
    134 SWARM_SERVICE_REPLICAS_RUNNING "swarm_service_replicas_running" None Gauge ["service"] "Tasks of a service that run.";
    135 SWARM_TASKS "swarm_tasks" None Gauge ["state"] "Tasks by state.";
    140 AGENT_CPU_SECONDS_TOTAL "agent_cpu_seconds_total" Seconds Counter [] "CPU time of the agent and its children.";
    141 AGENT_PSS_BYTES "agent_pss_bytes" Bytes Gauge [] "Proportional memory of the agent and its children.";
    142 AGENT_PROBE_CHILDREN "agent_probe_children" None Gauge [] "Child processes that probe mounts.";
    143 AGENT_COLLECTOR_DURATION_SECONDS "agent_collector_duration_seconds" Seconds Gauge ["collector"] "How long a collector took last.";
    144 AGENT_COLLECTOR_ERRORS_TOTAL "agent_collector_errors_total" None Counter ["collector"] "Times that a collector could not read.";
    145 AGENT_STREAM_BYTES_TOTAL "agent_stream_bytes_total" Bytes Counter [] "Sample bytes handed to the network, before encryption.";
    146 AGENT_STREAM_DROPPED_TOTAL "agent_stream_dropped_total" None Counter [] "Samples that were overtaken before they could be sent.";
    147 AGENT_THREADS "agent_threads" None Gauge [] "Threads of the agent.";
    148 AGENT_OPEN_FILES "agent_open_files" None Gauge [] "Descriptors that the agent holds.";
    149 AGENT_CONNECTED "agent_connected" None Gauge ["replica"] "1 while the session to a replica stands, else 0.";
    150 AGENT_INFO "agent_info" None Info ["version"] "The agent.";
    160 COORDINATOR_NODES "coordinator_nodes" None Gauge ["state"] "Nodes by state.";
    161 COORDINATOR_SESSIONS "coordinator_sessions" None Gauge [] "Agents that are connected.";
    162 COORDINATOR_SAMPLES_TOTAL "coordinator_samples_total" None Counter [] "Samples taken in.";
    163 COORDINATOR_SAMPLE_BYTES_TOTAL "coordinator_sample_bytes_total" Bytes Counter [] "Bytes of samples taken in.";
    164 COORDINATOR_REFUSALS_TOTAL "coordinator_refusals_total" None Counter ["reason"] "Connections and calls refused.";
    165 COORDINATOR_REQUESTS_TOTAL "coordinator_requests_total" None Counter ["service"] "Calls answered.";
    166 COORDINATOR_INFO "coordinator_info" None Info ["version", "replica"] "The replica.";
    167 COORDINATOR_VIEW_BYTES "coordinator_view_bytes" Bytes Gauge [] "Rough size of the live view.";
    180 COORDINATOR_CONNECTIONS "coordinator_connections" None Gauge ["role"] "Connections by who is on the other end.";
    181 COORDINATOR_CUT_TOTAL "coordinator_cut_total" None Counter ["what"] "Rows, labels and texts of samples that were cut at a limit.";
    190 COORDINATOR_RAFT_ROLE "coordinator_raft_role" None StateSet [] "What this replica is in its group.";
    191 COORDINATOR_RAFT_TERM "coordinator_raft_term" None Gauge [] "The latest term that this replica has seen.";
    192 COORDINATOR_RAFT_COMMITTED_INDEX "coordinator_raft_committed_index" None Gauge [] "Up to where this replica knows entries to be committed.";
    193 COORDINATOR_RAFT_APPLIED_INDEX "coordinator_raft_applied_index" None Gauge [] "The last entry that is part of this replica's state.";
    194 COORDINATOR_RAFT_LAG_ENTRIES "coordinator_raft_lag_entries" None Gauge ["peer"] "Committed entries that another replica lacks; only the leader knows.";
    195 COORDINATOR_RAFT_LEADER_HEARD_SECONDS "coordinator_raft_leader_heard_seconds" Seconds Gauge [] "Time since the leader was heard; 0 at the leader.";
    196 COORDINATOR_RAFT_ELECTIONS_TOTAL "coordinator_raft_elections_total" None Counter [] "Elections that this replica called for.";
    197 COORDINATOR_RAFT_LEADER_CHANGES_TOTAL "coordinator_raft_leader_changes_total" None Counter [] "Times that this replica learned of a leader.";
    198 COORDINATOR_PROPOSALS_TOTAL "coordinator_proposals_total" None Counter ["outcome"] "Proposals answered here: committed, refused or unknown.";
    199 COORDINATOR_LOG_BYTES "coordinator_log_bytes" Bytes Gauge [] "Size of the log's segments in use.";
    200 COORDINATOR_LOG_WRITES_TOTAL "coordinator_log_writes_total" None Counter [] "Batches made durable.";
    201 COORDINATOR_LOG_WRITE_SECONDS_TOTAL "coordinator_log_write_seconds_total" Seconds Counter [] "Time that these took, each with its fdatasync.";
    202 COORDINATOR_LOG_SLOWEST_WRITE_SECONDS "coordinator_log_slowest_write_seconds" Seconds Gauge [] "The slowest of the last minute or two.";
    203 COORDINATOR_CHECKPOINT_INDEX "coordinator_checkpoint_index" None Gauge [] "The last entry in the newest checkpoint.";
    204 COORDINATOR_CHECKPOINT_BYTES "coordinator_checkpoint_bytes" Bytes Gauge [] "Size of the state in the newest checkpoint.";
    205 COORDINATOR_CHECKPOINT_TIMESTAMP_SECONDS "coordinator_checkpoint_timestamp_seconds" Seconds Gauge [] "When the newest checkpoint was made; unknown where that was before the replica started.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_in_order_and_says_each_thing_once() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].number < pair[1].number));
        let mut names: Vec<_> = CATALOGUE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn names_end_in_their_unit_and_kind() {
        for metric in CATALOGUE {
            let counter = metric.name.strip_suffix("_total");
            assert_eq!(
                counter.is_some(),
                metric.kind == Kind::Counter || metric.name.ends_with("inodes_total"),
                "{}",
                metric.name
            );
            let stem = counter.unwrap_or(metric.name);
            if metric.unit != Unit::None {
                assert!(stem.ends_with(metric.unit.as_str()), "{}", metric.name);
            }
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
