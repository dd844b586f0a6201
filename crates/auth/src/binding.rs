//! The beginning of every transcript: the connection's preface and, on TLS connections whose exporter both sides can
//! compute, 32 bytes that identify this TLS connection.

use std::ops::Deref;

use crate::Preface;

/// Length of the exporter (RFC 8446, section 7.5).
const EXPORTER: usize = 32;
const PREFACE: usize = size_of::<Preface>();

/// The preface, followed by the exporter if there is one. An attacker between two TLS connections has two exporters,
/// so a proof made on one of them is invalid on the other.
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
