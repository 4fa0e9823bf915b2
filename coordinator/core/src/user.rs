//! Users: people with a certificate, and what each of them may do.

use mainstay_common::{Timestamp, UserName, identity::HumanRole};
use minicbor::{Decode, Encode};

use crate::{KeyFingerprint, Table};

/// A person as the cluster remembers them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct User {
    /// What they may do.
    #[n(0)]
    pub role: HumanRole,
    /// The key that their certificates hold.
    #[n(1)]
    pub key: KeyFingerprint,
    /// When they were added.
    #[n(2)]
    pub added_at: Timestamp,
    /// Who added them.
    #[n(3)]
    pub added_by: UserName,
    /// When they were revoked.
    #[n(4)]
    pub revoked_at: Option<Timestamp>,
}

/// How the table of users may change. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// An administrator adds a person.
    #[n(0)]
    Add(#[n(0)] UserName, #[n(1)] User),
    /// An administrator shuts a person out.
    #[n(1)]
    Revoke(#[n(0)] UserName),
    /// Root on a replica's machine takes the administrator's name with a new key.
    #[n(2)]
    Reissue(#[n(0)] UserName, #[n(1)] User),
}

/// What else must happen because a command was applied.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// The person may come in.
    #[n(0)]
    Added,
    /// The person is out.
    #[n(1)]
    Revoked(#[n(0)] UserName),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Somebody has the name.
    #[error("the name {0} is taken")]
    Taken(UserName),
    /// No such person.
    #[error("user {0:?} is unknown")]
    Unknown(String),
    /// Nobody could administer the cluster any more.
    #[error("{0} is the last administrator")]
    LastAdmin(UserName),
}

/// All users by name, revoked ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(pub(crate) Table<UserName, User>);

impl Users {
    /// Applies one committed command; `at` is the moment at which it was proposed.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, at: Timestamp, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Add(name, user) => self.add(name, user),
            Command::Revoke(name) => self.revoke(at, name),
            Command::Reissue(name, user) => {
                self.0.insert(name.clone(), user.clone());
                Ok(Consequence::Added)
            }
        }
    }

    /// Whether this key may speak for that person in that role.
    #[must_use]
    pub fn allows(&self, name: &UserName, role: HumanRole, key: KeyFingerprint) -> bool {
        self.0.get(name).is_some_and(|user| user.revoked_at.is_none() && user.key == key && user.role == role)
    }

    /// Every user, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&UserName, &User)> {
        self.0.iter()
    }

    /// The same name and key again is the same person: a lost reply must not lock them out.
    fn add(&mut self, name: &UserName, user: &User) -> Result<Consequence, Rejected> {
        match self.0.get(name) {
            Some(there) if there.revoked_at.is_none() && (there.key != user.key || there.role != user.role) => {
                Err(Rejected::Taken(name.clone()))
            }
            Some(there) if there.revoked_at.is_none() => Ok(Consequence::Added),
            _ => {
                self.0.insert(name.clone(), user.clone());
                Ok(Consequence::Added)
            }
        }
    }

    fn revoke(&mut self, at: Timestamp, name: &UserName) -> Result<Consequence, Rejected> {
        let admin = |user: &User| user.revoked_at.is_none() && user.role == HumanRole::Admin;
        let admins = self.0.iter().filter(|(_, user)| admin(user)).count();
        let user = self.0.get_mut(name).ok_or_else(|| Rejected::Unknown(name.to_string()))?;
        if admin(user) && admins == 1 {
            return Err(Rejected::LastAdmin(name.clone()));
        }
        user.revoked_at.get_or_insert(at);
        Ok(Consequence::Revoked(name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn a_name_belongs_to_one_key_until_it_is_revoked() {
        let mut users = Users::default();
        add(&mut users, "root", 1, HumanRole::Admin).unwrap();
        add(&mut users, "eve", 2, HumanRole::Viewer).unwrap();
        add(&mut users, "eve", 2, HumanRole::Viewer).unwrap();
        assert_eq!(add(&mut users, "eve", 3, HumanRole::Viewer), Err(Rejected::Taken(name("eve"))));
        users.apply(NOON, &Command::Revoke(name("eve"))).unwrap();
        assert!(!users.allows(&name("eve"), HumanRole::Viewer, KeyFingerprint([2; 32])));
        add(&mut users, "eve", 3, HumanRole::Operator).unwrap();
        assert!(users.allows(&name("eve"), HumanRole::Operator, KeyFingerprint([3; 32])));
        assert!(!users.allows(&name("eve"), HumanRole::Admin, KeyFingerprint([3; 32])));
    }

    #[test]
    fn the_last_administrator_stays() {
        let mut users = Users::default();
        add(&mut users, "root", 1, HumanRole::Admin).unwrap();
        assert_eq!(users.apply(NOON, &Command::Revoke(name("root"))), Err(Rejected::LastAdmin(name("root"))));
    }

    fn add(users: &mut Users, who: &str, key: u8, role: HumanRole) -> Result<Consequence, Rejected> {
        let user =
            User { role, key: KeyFingerprint([key; 32]), added_at: NOON, added_by: name("root"), revoked_at: None };
        users.apply(NOON, &Command::Add(name(who), user))
    }

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }
}
