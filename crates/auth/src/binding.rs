//! What every transcript begins with: the connection's preface and, where the connection is TLS and both ends can ask
//! it, 32 bytes that belong to this one TLS connection.

use std::ops::Deref;

use crate::Preface;

/// Bytes of the exporter (RFC 8446, section 7.5).
const EXPORTER: usize = 32;
const PREFACE: usize = size_of::<Preface>();

/// The preface, and the exporter after it where there is one. Somebody who sits between two TLS connections has two
/// exporters, so no proof that is made on one of them holds on the other.
#[derive(Clone, Copy)]
pub struct ChannelBinding {
    bytes: [u8; PREFACE + EXPORTER],
    length: usize,
}

impl ChannelBinding {
    pub fn new(preface: &Preface, exporter: Option<[u8; EXPORTER]>) -> Self {
        let mut bytes = [0; PREFACE + EXPORTER];
        bytes[..PREFACE].copy_from_slice(preface);
        if let Some(exporter) = exporter {
            bytes[PREFACE..].copy_from_slice(&exporter);
        }
        let length = if exporter.is_some() { bytes.len() } else { PREFACE };
        Self { bytes, length }
    }
}

impl Deref for ChannelBinding {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_appends_exporter_to_preface() {
        assert_eq!(ChannelBinding::new(&[1; 12], None)[..], [1; 12]);
        assert_eq!(ChannelBinding::new(&[1; 12], Some([2; 32]))[..], [[1; 12].as_slice(), &[2; 32]].concat());
    }
}
