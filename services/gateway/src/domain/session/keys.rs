//! The keys by which a client proves that a session is its own. The gateway's key has a predecessor, which is valid until
//! the client has used the new one. The world's key is kept only to present the session to a new leader.

use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys},
};

pub(crate) struct ResumeKeys {
    current: Key,
    /// The key that the client used last. It stays valid because the client may not have received `SessionReady`.
    previous: Option<Key>,
    /// The key that the world keeps.
    world: Key,
}

/// The fields of `Resume` that the client's proof covers.
pub(crate) struct ResumeClaim<'a> {
    /// As in [`shardkeep_auth::ChannelBinding`].
    pub(crate) preface: &'a [u8],
    pub(crate) session: &'a [u8; 16],
    pub(crate) random: &'a [u8; 32],
    pub(crate) suites: &'a [u8],
}

impl ResumeClaim<'_> {
    /// Whether `mac` proves the key.
    pub(crate) fn proves(&self, key: &Key, mac: &[u8]) -> bool {
        Proof::resume(key).client(self.preface, self.session, self.random, self.suites).matches(mac)
    }
}

impl ResumeKeys {
    /// After an attach, or a resume by the world's key.
    pub(crate) fn new(keys: &SessionKeys) -> Self {
        Self { current: keys.gateway_resume.clone(), previous: None, world: keys.world_resume.clone() }
    }

    pub(crate) fn world(&self) -> &Key {
        &self.world
    }

    /// The key that the client has proved, if any.
    pub(crate) fn proved(&self, claim: &ResumeClaim<'_>, mac: &[u8]) -> Option<Key> {
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| claim.proves(key, mac))
            .cloned()
    }

    /// The client has confirmed a resume by `used`. Returns false if that key has been replaced since.
    #[must_use]
    pub(crate) fn replace(&mut self, used: &Key, keys: &SessionKeys) -> bool {
        let known = self.current == *used || self.previous.as_ref() == Some(used);
        if known {
            self.previous = Some(used.clone());
            self.current = keys.gateway_resume.clone();
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(number: u8) -> SessionKeys {
        SessionKeys::derive(&Key::new([number; 32]), &[0; 12], b"request", b"attached")
    }

    #[test]
    fn previous_resume_key_is_valid_until_new_one_is_used() {
        let (first, second, third) = (keys(1), keys(2), keys(3));
        let claim = ResumeClaim { preface: &[0; 12], session: &[1; 16], random: &[2; 32], suites: &[1] };
        let mac = |key: &Key| *Proof::resume(key).client(&[0; 12], &[1; 16], &[2; 32], &[1]).as_bytes();
        let mut resume = ResumeKeys::new(&first);
        let proved = |resume: &ResumeKeys, keys: &SessionKeys| {
            resume.proved(&claim, &mac(&keys.gateway_resume)).is_some()
        };

        assert!(proved(&resume, &first) && !proved(&resume, &second));
        assert!(resume.replace(&first.gateway_resume, &second));
        assert!(proved(&resume, &first), "the client may not have received SessionReady");
        assert!(resume.replace(&second.gateway_resume, &third));
        assert!(!proved(&resume, &first) && proved(&resume, &second) && proved(&resume, &third));
        assert!(!resume.replace(&first.gateway_resume, &second));
    }
}
