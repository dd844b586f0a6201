//! A map from address prefixes to values: a binary tree that finds the longest matching prefix.

use std::{fmt, net::IpAddr, str::FromStr};

/// `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    address: IpAddr,
    length: u8,
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network, such as 192.0.2.0/24");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        let (bits, width) = bits(address);
        if length > width {
            return Err(wrong());
        }
        if bits.checked_shl(length.into()).unwrap_or_default() != 0 {
            return Err(format!("{text:?} has bits set beyond its prefix"));
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Result of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match<T> {
    pub(crate) value: Option<T>,
    /// Number of leading bits that decide: every address with the same leading bits has the same value.
    pub(crate) scope: u8,
}

/// Prefixes of both families.
#[derive(Debug)]
pub(crate) struct Prefixes<T> {
    /// The first two are the roots of the families.
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    /// Indices of the child nodes for a next bit of 0 and 1. Index 0 means no child.
    next: [u32; 2],
    value: Option<T>,
}

impl<T> Node<T> {
    const EMPTY: Self = Self { next: [0; 2], value: None };
}

impl<T: Copy> Prefixes<T> {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::EMPTY, Node::EMPTY] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.len() == 2 && self.nodes.iter().all(|node| node.value.is_none())
    }

    /// Returns the previous value of the same prefix.
    pub(crate) fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        let (bits, _) = bits(prefix.address);
        let mut at = root(prefix.address);
        for depth in 0..prefix.length {
            let side = side(bits, depth);
            if self.nodes[at].next[side] == 0 {
                self.nodes[at].next[side] = self.nodes.len() as u32;
                self.nodes.push(Node::EMPTY);
            }
            at = self.nodes[at].next[side] as usize;
        }
        self.nodes[at].value.replace(value)
    }

    /// The value of the longest prefix that contains the address.
    pub(crate) fn find(&self, address: IpAddr) -> Match<T> {
        let (bits, width) = bits(address);
        let (mut at, mut depth) = (root(address), 0);
        let mut value = self.nodes[at].value;
        while depth < width {
            let node = &self.nodes[at];
            if node.next == [0; 2] {
                break;
            }
            // No prefix continues on this side, so one more bit separates the address from all other prefixes.
            at = node.next[side(bits, depth)] as usize;
            depth += 1;
            if at == 0 {
                break;
            }
            value = self.nodes[at].value.or(value);
        }
        Match { value, scope: depth }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.find(address).value.is_some()
    }
}

/// The bits of the address, left-aligned, and their number.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn root(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

fn side(bits: u128, depth: u8) -> usize {
    usize::from(bits >> (127 - depth) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefixes(texts: &[&str]) -> Prefixes<usize> {
        let mut prefixes = Prefixes::new();
        for (at, text) in texts.iter().enumerate() {
            assert_eq!(prefixes.insert(text.parse().unwrap(), at), None);
        }
        prefixes
    }

    fn find(prefixes: &Prefixes<usize>, address: &str) -> (Option<usize>, u8) {
        let found = prefixes.find(address.parse().unwrap());
        (found.value, found.scope)
    }

    #[test]
    fn longest_prefix_wins_and_scope_excludes_others() {
        let prefixes = prefixes(&["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"]);
        assert_eq!(find(&prefixes, "10.1.2.3"), (Some(1), 16));
        // 10.0.0.0/16 and 10.1.0.0/16 share 15 bits and differ in the sixteenth.
        assert_eq!(find(&prefixes, "10.0.9.9"), (Some(0), 16));
        assert_eq!(find(&prefixes, "10.128.0.1"), (Some(0), 9));
        assert_eq!(find(&prefixes, "192.0.2.1"), (None, 1));
        assert_eq!(find(&prefixes, "2001:db8::1"), (Some(2), 32));
        assert_eq!(find(&Prefixes::new(), "192.0.2.1"), (None, 0));
    }

    #[test]
    fn default_and_host_prefixes_match() {
        let prefixes = prefixes(&["0.0.0.0/0", "192.0.2.7/32"]);
        assert_eq!(find(&prefixes, "192.0.2.7"), (Some(1), 32));
        assert_eq!(find(&prefixes, "192.0.2.6"), (Some(0), 32));
        assert_eq!(find(&prefixes, "::1"), (None, 0));
        assert!(prefixes.contains([1, 2, 3, 4].into()));
    }

    #[test]
    fn malformed_prefixes_are_rejected() {
        for wrong in ["", "192.0.2.0", "192.0.2.0/33", "192.0.2.1/24", "::1/64", "a/8", "192.0.2.0/x"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
        assert!("192.0.2.1/32".parse::<Prefix>().is_ok() && "::/0".parse::<Prefix>().is_ok());
    }

    proptest! {
        /// RFC 7871: a resolver may give the answer to every client whose address shares the bits of the scope.
        #[test]
        fn match_scope_holds_for_addresses_sharing_it(
            inserted in proptest::collection::vec((any::<u16>(), 0u8..=16), 0..12),
            asked: u16,
            other: u16,
        ) {
            let mut prefixes = Prefixes::new();
            for (at, (bits, length)) in inserted.into_iter().enumerate() {
                let bits = if length == 0 { 0 } else { bits >> (16 - length) << (16 - length) };
                let [a, b] = bits.to_be_bytes();
                prefixes.insert(Prefix { address: [a, b, 0, 0].into(), length }, at);
            }
            let address = |bits: u16| IpAddr::from([bits.to_be_bytes()[0], bits.to_be_bytes()[1], 0, 0]);
            let found = prefixes.find(address(asked));
            prop_assert!(found.scope <= 16);
            let shared = if found.scope == 0 { 0 } else { !0 << (16 - found.scope) };
            let neighbour = asked & shared | other & !shared;
            prop_assert_eq!(prefixes.find(address(neighbour)).value, found.value);
        }
    }
}
