//! Packets that begin like QUIC's (RFC 9000, section 17.2) and continue with noise: initial packets, packets of an unknown
//! version, and noise alone. A server that answers with many more bytes than it received would be an amplifier.

use std::sync::Arc;

use crate::{context::AttackContext, flood, source, tally::Tally};

/// Most bytes that a server may send to an unvalidated address, as a multiple of the received bytes (RFC 9000, section 8.1).
const MAX_AMPLIFICATION: u64 = 3;
/// Least length of a first packet (RFC 9000, section 14.1).
const INITIAL: usize = 1_200;

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let endpoint = || ctx.player_endpoint().map(|(_, at)| at);
    let Some((sent, received)) = flood::run(&ctx, &tally, endpoint, packet).await else { return };
    if received.bytes > MAX_AMPLIFICATION * sent.bytes {
        tally.breach(&format!("{} bytes of answers to {} bytes of noise", received.bytes, sent.bytes));
    }
}

fn packet() -> Vec<u8> {
    let mut noise = vec![0; INITIAL];
    source::fill(&mut noise);
    match source::below(4) {
        0 => noise.truncate(1 + source::below(INITIAL)),
        1 => write_initial_header(&mut noise, 0x0a0a_0a0a),
        _ => write_initial_header(&mut noise, 1),
    }
    noise
}

/// The header of a first packet: connection ids of eight bytes each, no token, the rest of the datagram as its length.
fn write_initial_header(packet: &mut [u8], version: u32) {
    packet[0] = 0xc0 | (packet[0] & 0x03);
    packet[1..5].copy_from_slice(&version.to_be_bytes());
    (packet[5], packet[14], packet[23]) = (8, 8, 0);
    let rest = u16::try_from(packet.len() - 26).unwrap_or_default();
    packet[24..26].copy_from_slice(&(0x4000 | rest).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_packet_header_states_remaining_length() {
        let mut packet = vec![0xff; INITIAL];
        write_initial_header(&mut packet, 1);
        assert_eq!(packet[..6], [0xc3, 0, 0, 0, 1, 8]);
        assert_eq!((packet[14], packet[23]), (8, 0));
        assert_eq!(u16::from_be_bytes([packet[24], packet[25]]) & 0x3fff, 1_174);
    }
}
