//! DNS cookies (RFC 7873) with the server cookie of RFC 9018. A client that returns a server cookie has received it at
//! its address, so the address is not forged and needs no rate limit.
//!
//! The secret comes from the settings, where name servers behind one address must share it. Without such a setting each
//! process draws a secret and replaces it daily.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use aws_lc_rs::constant_time;
use shardkeep_daemon::random_bytes;
use shardkeep_types::Secret;

pub(crate) type ClientCookie = [u8; 8];
pub(crate) type ServerCookie = [u8; 16];

const VERSION: u8 = 1;
/// RFC 9018, 4.3: the maximum age of a cookie, how far its time may be ahead of the clock, and the age from which the
/// server sends a new one.
const MAX_AGE_S: i32 = 3600;
const MAX_CLOCK_SKEW_S: i32 = 300;
const RENEW_AFTER_S: i32 = 1800;

/// The cookie option of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CookieOption<'a> {
    pub(crate) client: &'a ClientCookie,
    /// Empty when the client has no server cookie yet.
    pub(crate) server: &'a [u8],
}

impl<'a> CookieOption<'a> {
    /// `None` when the length is invalid (RFC 7873, 5.2.2).
    pub(crate) fn read(data: &'a [u8]) -> Option<Self> {
        let (client, server) = data.split_first_chunk::<8>()?;
        matches!(server.len(), 0 | 8..=32).then_some(Self { client, server })
    }
}

/// Result of checking a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CookieStatus {
    /// The client has received an answer at this address.
    Good,
    /// The client has no server cookie and asks for one.
    New,
    /// Expired, of another address, or made with another secret.
    Bad,
}

impl CookieStatus {
    pub(crate) const ALL: [Self; 3] = [Self::Good, Self::New, Self::Bad];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::New => "new",
            Self::Bad => "bad",
        }
    }
}

type Key = Secret<[u8; 16]>;

/// The secrets of this server.
#[derive(Debug, Clone)]
pub(crate) struct Cookies {
    current: Key,
    /// Accepted, but not used for new cookies.
    previous: Option<Key>,
}

impl Cookies {
    pub(crate) fn new(current: [u8; 16], previous: Option<[u8; 16]>) -> Self {
        Self { current: current.into(), previous: previous.map(Secret::new) }
    }

    /// # Errors
    /// When the system provides no random bytes.
    pub(crate) fn random() -> anyhow::Result<Self> {
        Ok(Self { current: random_key()?, previous: None })
    }

    /// A new random secret. Cookies of the current secret stay valid until they expire.
    ///
    /// # Errors
    /// When the system provides no random bytes.
    pub(crate) fn rotated(&self) -> anyhow::Result<Self> {
        Ok(Self { current: random_key()?, previous: Some(self.current.clone()) })
    }

    /// Checks a cookie, and returns the server cookie for the answer. `now` is in seconds since the Unix epoch.
    pub(crate) fn verify(
        &self,
        presented: &CookieOption<'_>,
        address: IpAddr,
        now: u32,
    ) -> (CookieStatus, ServerCookie) {
        let fresh = || make_server_cookie(&self.current, presented.client, now, address);
        let Ok(server) = <&ServerCookie>::try_from(presented.server) else {
            let status = if presented.server.is_empty() { CookieStatus::New } else { CookieStatus::Bad };
            return (status, fresh());
        };
        let time = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
        // Serial number arithmetic (RFC 1982): the clock wraps around in 2106.
        let age = now.wrapping_sub(time) as i32;
        if server[0] != VERSION || !(-MAX_CLOCK_SKEW_S..=MAX_AGE_S).contains(&age) {
            return (CookieStatus::Bad, fresh());
        }
        let matches_key = |key: &Key| {
            // The client returns the reserved bytes, and the hash covers them.
            let expected = hash(key, presented.client, server.first_chunk().unwrap_or(&[0; 8]), address);
            constant_time::verify_slices_are_equal(&expected, &server[8..]).is_ok()
        };
        if matches_key(&self.current) {
            (CookieStatus::Good, if age > RENEW_AFTER_S { fresh() } else { *server })
        } else if self.previous.as_ref().is_some_and(matches_key) {
            (CookieStatus::Good, fresh())
        } else {
            (CookieStatus::Bad, fresh())
        }
    }
}

fn random_key() -> anyhow::Result<Key> {
    Ok(random_bytes::<16>()?.into())
}

fn make_server_cookie(key: &Key, client: &ClientCookie, now: u32, address: IpAddr) -> ServerCookie {
    let mut cookie = [0; 16];
    cookie[0] = VERSION;
    cookie[4..8].copy_from_slice(&now.to_be_bytes());
    let hash = hash(key, client, cookie.first_chunk().unwrap_or(&[0; 8]), address);
    cookie[8..].copy_from_slice(&hash);
    cookie
}

/// RFC 9018, 4.4: SipHash-2-4 over client cookie, version, reserved bytes, time and address.
fn hash(key: &Key, client: &ClientCookie, head: &[u8; 8], address: IpAddr) -> [u8; 8] {
    let mut text = [0; 32];
    text[..8].copy_from_slice(client);
    text[8..16].copy_from_slice(head);
    let length = match address {
        IpAddr::V4(address) => {
            text[16..20].copy_from_slice(&address.octets());
            20
        }
        IpAddr::V6(address) => {
            text[16..].copy_from_slice(&address.octets());
            32
        }
    };
    SipHasher24::new_with_key(key.expose()).hash(&text[..length]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    struct Vector {
        secrets: (&'static str, Option<&'static str>),
        client: &'static str,
        address: &'static str,
        presented: &'static str,
        now: u32,
        status: CookieStatus,
        given: &'static str,
    }

    /// RFC 9018, appendix A.
    const VECTORS: [Vector; 4] = [
        Vector {
            secrets: ("e5e973e5a6b2a43f48e7dc849e37bfcf", None),
            client: "2464c4abcf10c957",
            address: "198.51.100.100",
            presented: "",
            now: 1_559_731_985,
            status: CookieStatus::New,
            given: "010000005cf79f111f8130c3eee29480",
        },
        Vector {
            secrets: ("e5e973e5a6b2a43f48e7dc849e37bfcf", None),
            client: "2464c4abcf10c957",
            address: "198.51.100.100",
            presented: "010000005cf79f111f8130c3eee29480",
            now: 1_559_734_385,
            status: CookieStatus::Good,
            given: "010000005cf7a871d4a564a1442aca77",
        },
        Vector {
            secrets: ("e5e973e5a6b2a43f48e7dc849e37bfcf", None),
            client: "fc93fc62807ddb86",
            address: "203.0.113.203",
            presented: "01abcdef5cf78f71a314227b6679ebf5",
            now: 1_559_734_700,
            status: CookieStatus::Bad,
            given: "010000005cf7a9acf73a7810aca2381e",
        },
        Vector {
            secrets: ("445536bcd2513298075a5d379663c962", Some("dd3bdf9344b678b185a6f5cb60fca715")),
            client: "22681ab97d52c298",
            address: "2001:db8:220:1:59de:d0f4:8769:82b8",
            presented: "010000005cf7c57926556bd0934c72f8",
            now: 1_559_741_961,
            status: CookieStatus::Good,
            given: "010000005cf7c609a6bb79d16625507a",
        },
    ];

    #[test]
    fn rfc_9018_vectors() {
        for (at, vector) in VECTORS.iter().enumerate() {
            let cookies = Cookies::new(bytes(vector.secrets.0), vector.secrets.1.map(bytes));
            let (client, server) = (bytes(vector.client), hex::decode(vector.presented).unwrap());
            let presented = CookieOption { client: &client, server: &server };
            let verified = cookies.verify(&presented, vector.address.parse().unwrap(), vector.now);
            assert_eq!(verified, (vector.status, bytes(vector.given)), "A.{}", at + 1);
        }
    }

    #[test]
    fn cookie_is_valid_for_one_client_address_and_hour() {
        let cookies = Cookies::random().unwrap();
        let (home, now) = (IpAddr::from([192, 0, 2, 1]), 1_000_000);
        let verify = |cookies: &Cookies, client: &ClientCookie, server: &[u8], address, now| {
            cookies.verify(&CookieOption { client, server }, address, now)
        };
        let (status, cookie) = verify(&cookies, b"client-1", b"", home, now);
        assert_eq!(status, CookieStatus::New);
        assert_eq!(verify(&cookies, b"client-1", &cookie, home, now), (CookieStatus::Good, cookie));
        for (age, status) in [
            (-301, CookieStatus::Bad),
            (-300, CookieStatus::Good),
            (3600, CookieStatus::Good),
            (3601, CookieStatus::Bad),
        ] {
            let then = now.wrapping_add_signed(age);
            assert_eq!(verify(&cookies, b"client-1", &cookie, home, then).0, status, "{age}");
        }
        assert_eq!(verify(&cookies, b"client-2", &cookie, home, now).0, CookieStatus::Bad);
        assert_eq!(verify(&cookies, b"client-1", &cookie, [192, 0, 2, 2].into(), now).0, CookieStatus::Bad);
        assert_eq!(verify(&cookies, b"client-1", &cookie[..8], home, now).0, CookieStatus::Bad);
        let rotated = cookies.rotated().unwrap();
        let (status, next) = verify(&rotated, b"client-1", &cookie, home, now);
        assert!(status == CookieStatus::Good && next != cookie);
        assert_eq!(verify(&rotated.rotated().unwrap(), b"client-1", &cookie, home, now).0, CookieStatus::Bad);
    }

    #[test]
    fn cookie_of_wrong_length_is_rejected() {
        for (length, read) in
            [(0, false), (7, false), (8, true), (9, false), (15, false), (16, true), (40, true), (41, false)]
        {
            assert_eq!(CookieOption::read(&vec![0; length]).is_some(), read, "{length}");
        }
    }
}
