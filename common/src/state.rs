//! States that a thing can be in. The numbers travel over the wire; the words are what people and scripts read.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};

/// A word that is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is none of {known}")]
pub struct UnknownState {
    /// The word.
    pub word: String,
    /// The words there are.
    pub known: String,
}

macro_rules! states {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[repr(i32)]
        pub enum $type { $($(#[$variant_doc])* $variant = $number,)* }

        impl $type {
            /// Every state there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Its number on the wire.
            #[must_use]
            pub fn number(self) -> i32 {
                self as i32
            }

            /// The state of that number; `None` for 0 and for states that a newer version knows.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }

        impl<C> Encode<C> for $type {
            fn encode<W: encode::Write>(&self, to: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                to.i32(self.number())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(from: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let (at, number) = (from.position(), from.i32()?);
                Self::from_number(number).ok_or_else(|| decode::Error::unknown_variant(number.into()).at(at))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownState;

            fn from_str(word: &str) -> Result<Self, UnknownState> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(UnknownState { word: word.to_owned(), known: [$($word,)*].join(", ") }),
                }
            }
        }
    };
}

states! {
    /// How a node looks from here.
    NodeState {
        /// Its samples arrive.
        Ready = 1 "ready",
        /// Three intervals without a sample.
        Stale = 2 "stale",
        /// Nine intervals without a sample.
        Unreachable = 3 "unreachable",
        /// Takes no new work.
        Cordoned = 4 "cordoned",
        /// Is being emptied.
        Draining = 5 "draining",
        /// Is empty.
        Drained = 6 "drained",
        /// Enrolled, but never seen.
        Pending = 7 "pending",
    }
}
states! {
    /// How bad it is where a rule holds. The later is the worse.
    Severity {
        /// Somebody should look today.
        Warning = 1 "warning",
        /// Somebody should look now.
        Critical = 2 "critical",
    }
}
states! {
    /// How an alert stands.
    AlertState {
        /// The condition holds, not long enough yet.
        Pending = 1 "pending",
        /// It has held long enough: receivers are told.
        Firing = 2 "firing",
        /// It fires, and a person has it.
        Acked = 3 "acked",
        /// It is over.
        Resolved = 4 "resolved",
        /// Nothing is known of it now; it stays what it was until there are readings again.
        Unknown = 5 "unknown",
    }
}
states! {
    /// How a local filesystem fares.
    DiskState {
        /// It answers and can be written.
        Ok = 1 "ok",
        /// The filesystem itself is read-only.
        Readonly = 2 "readonly",
        /// It answers with an error, or counted errors.
        Error = 3 "error",
        /// No reading.
        Unknown = 4 "unknown",
    }
}
states! {
    /// How a network or FUSE mount answers on its node. Says nothing about the remote behind it.
    MountState {
        /// The last answer took at most 1 s.
        Ok = 1 "ok",
        /// The last answer took longer.
        Slow = 2 "slow",
        /// A probe is outstanding for more than 5 s, or its FUSE process is stopped.
        Hung = 3 "hung",
        /// Its FUSE process ended, or a mount that was there is no longer.
        Gone = 4 "gone",
        /// The server answers, the handle is dead (ESTALE): remount.
        Stale = 5 "stale",
        /// The agent may not look.
        Denied = 6 "denied",
        /// It answers with another error.
        Error = 7 "error",
        /// Not probed yet, or not probed because of a limit.
        Unknown = 8 "unknown",
    }
}
states! {
    /// How the remote behind a mount answers.
    RemoteState {
        /// It told its size.
        Ok = 1 "ok",
        /// It could not be asked.
        Error = 2 "error",
        /// Nobody can ask it.
        Unknown = 3 "unknown",
    }
}
states! {
    /// What rclone's remote control says of itself.
    RcState {
        /// It answers.
        Ok = 1 "ok",
        /// rclone runs without one.
        None = 2 "none",
        /// It wants credentials that the agent was not given.
        Denied = 3 "denied",
        /// It does not answer.
        Unreachable = 4 "unreachable",
    }
}
states! {
    /// What the engine says a container does.
    ContainerState {
        /// Made, never started.
        Created = 1 "created",
        /// Runs.
        Running = 2 "running",
        /// Frozen.
        Paused = 3 "paused",
        /// Between an end and a start.
        Restarting = 4 "restarting",
        /// On its way out.
        Removing = 5 "removing",
        /// Ended.
        Exited = 6 "exited",
        /// Could not be removed.
        Dead = 7 "dead",
        /// The engine does not answer.
        Unknown = 8 "unknown",
    }
}
states! {
    /// What a container's own health check says.
    HealthState {
        /// It has none.
        None = 1 "none",
        /// Not decided yet.
        Starting = 2 "starting",
        /// Passed.
        Healthy = 3 "healthy",
        /// Failed.
        Unhealthy = 4 "unhealthy",
        /// No reading.
        Unknown = 5 "unknown",
    }
}
states! {
    /// Whether the container engine answers.
    EngineState {
        /// It does.
        Ok = 1 "ok",
        /// There is no socket.
        Missing = 2 "missing",
        /// Nobody listens.
        Refused = 3 "refused",
        /// The agent may not open the socket.
        Denied = 4 "denied",
        /// No answer in time.
        Timeout = 5 "timeout",
        /// It answers with an error.
        Error = 6 "error",
    }
}
states! {
    /// What the engine says of its membership in a Swarm.
    SwarmState {
        /// In none.
        Inactive = 1 "inactive",
        /// Joining.
        Pending = 2 "pending",
        /// A member.
        Active = 3 "active",
        /// A member with a fault.
        Error = 4 "error",
        /// A manager that waits to be unlocked.
        Locked = 5 "locked",
    }
}
states! {
    /// What became of one message to one receiver.
    DeliveryState {
        /// Nobody sends it now.
        Owed = 1 "owed",
        /// The leader sends it.
        Claimed = 2 "claimed",
        /// The receiver took it.
        Delivered = 3 "delivered",
        /// It was given up.
        GivenUp = 4 "given_up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_read_back() {
        for state in MountState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(MountState::from_number(state.number()), Some(*state));
        }
        assert_eq!(MountState::from_number(0), None);
        assert!("fine".parse::<NodeState>().unwrap_err().to_string().contains("unreachable"));
    }
}
