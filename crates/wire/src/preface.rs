//! The first twelve bytes of every connection. With them a server drops foreign traffic before it allocates memory
//! for it.

use aws_lc_rs::digest;

pub const LENGTH: usize = 12;
pub const MAGIC: [u8; 4] = *b"SKEP";
pub const VERSION: u16 = 1;

/// The service that the client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Service {
    Login = 1,
    Gateway = 2,
    /// The update service of a login server.
    Update = 3,
}

/// A valid preface of this protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preface {
    pub service: Service,
    /// See [`deployment_tag`].
    pub deployment: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    #[error("not this protocol")]
    WrongMagic,
    /// The only preface error with an answer: a plain `Error` with UNSUPPORTED_VERSION.
    #[error("protocol version {0} is not supported")]
    Version(u16),
    #[error("service {0} is not served here")]
    Service(u8),
    #[error("reserved byte is {0}")]
    Reserved(u8),
    #[error("deployment tag {0:08x} belongs to another deployment")]
    Deployment(u32),
}

impl PrefaceError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::WrongMagic => "foreign",
            Self::Version(_) => "version",
            Self::Service(_) => "service",
            Self::Reserved(_) => "reserved",
            Self::Deployment(_) => "deployment",
        }
    }
}

impl Preface {
    pub fn new(service: Service, deployment: u32) -> Self {
        Self { service, deployment }
    }

    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = self.service as u8;
        bytes[8..].copy_from_slice(&self.deployment.to_le_bytes());
        bytes
    }

    pub fn parse(bytes: &[u8; LENGTH]) -> Result<Self, PrefaceError> {
        let [m0, m1, m2, m3, v0, v1, service, reserved, d0, d1, d2, d3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(PrefaceError::WrongMagic);
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(PrefaceError::Version(version));
        }
        let service = match service {
            1 => Service::Login,
            2 => Service::Gateway,
            3 => Service::Update,
            other => return Err(PrefaceError::Service(other)),
        };
        if reserved != 0 {
            return Err(PrefaceError::Reserved(reserved));
        }
        Ok(Self { service, deployment: u32::from_le_bytes([d0, d1, d2, d3]) })
    }

    /// Server-side check: the preface must request this service of this deployment.
    pub fn accept(&self, bytes: &[u8; LENGTH]) -> Result<(), PrefaceError> {
        let received = Self::parse(bytes)?;
        if received.service != self.service {
            return Err(PrefaceError::Service(received.service as u8));
        }
        if received.deployment != self.deployment {
            return Err(PrefaceError::Deployment(received.deployment));
        }
        Ok(())
    }
}

/// The first four bytes of the SHA-256 of the deployment's name, as a little-endian number.
pub fn deployment_tag(name: &str) -> u32 {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    digest.as_ref().first_chunk().copied().map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPECTED: Preface = Preface { service: Service::Gateway, deployment: 0x9a0e_26ef };

    #[test]
    fn deployment_tag_of_dev_is_stable() {
        assert_eq!(deployment_tag("dev"), 0x9a0e_26ef);
        assert_eq!(EXPECTED.encode(), *b"SKEP\x01\x00\x02\x00\xef\x26\x0e\x9a");
    }

    #[test]
    fn invalid_preface_gives_specific_error() {
        let with_byte = |at: usize, byte: u8| {
            let mut bytes = EXPECTED.encode();
            bytes[at] = byte;
            EXPECTED.accept(&bytes)
        };
        assert_eq!(EXPECTED.accept(&EXPECTED.encode()), Ok(()));
        assert_eq!(with_byte(0, b'G'), Err(PrefaceError::WrongMagic));
        assert_eq!(with_byte(4, 2), Err(PrefaceError::Version(2)));
        assert_eq!(with_byte(6, 1), Err(PrefaceError::Service(1)));
        assert_eq!(with_byte(6, 9), Err(PrefaceError::Service(9)));
        assert_eq!(with_byte(7, 1), Err(PrefaceError::Reserved(1)));
        assert_eq!(with_byte(8, 0), Err(PrefaceError::Deployment(0x9a0e_2600)));
    }

    proptest! {
        #[test]
        fn parsed_preface_reencodes_identically(bytes: [u8; LENGTH]) {
            if let Ok(preface) = Preface::parse(&bytes) {
                prop_assert_eq!(preface.encode(), bytes);
            }
        }

        #[test]
        fn preface_round_trips(service in 0usize..3, deployment: u32) {
            let service = [Service::Login, Service::Gateway, Service::Update][service];
            let preface = Preface::new(service, deployment);
            prop_assert_eq!(Preface::parse(&preface.encode()), Ok(preface));
        }
    }
}
