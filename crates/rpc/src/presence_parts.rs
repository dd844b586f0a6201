//! Splits a report of presence, which grows with the number of players, into messages below the limit of a message.

use crate::world::{Presence, PresenceReport};

/// Characters in one message. The largest entry has about 200 bytes.
const MAX_CHARACTERS: usize = 10_000;

/// The messages of one report, in order. Only the first one replaces earlier reports, if the report is complete.
pub fn presence_parts(mut report: PresenceReport) -> Vec<PresenceReport> {
    let rest = report.present.split_off(report.present.len().min(MAX_CHARACTERS));
    let (zone, space) = (report.zone.clone(), report.space);
    let part = |present: &[Presence]| PresenceReport {
        zone: zone.clone(),
        space,
        present: present.to_vec(),
        ..PresenceReport::default()
    };
    std::iter::once(report).chain(rest.chunks(MAX_CHARACTERS).map(part)).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::common::InstanceId;

    #[test]
    fn large_report_is_split_into_messages_below_the_limit() {
        let largest = Presence {
            character: u64::MAX,
            name: "n".repeat(64),
            session: vec![1; 16],
            account: u64::MAX,
            space: u32::MAX,
            cell_x: u16::MAX.into(),
            cell_y: u16::MAX.into(),
            zone: "z".repeat(64),
            epoch: u64::MAX,
        };
        let zone = Some(InstanceId { kind: "zone".into(), name: "zone-1".into(), incarnation: 1 });
        let (present, gone) = (vec![largest; 25_000], vec![7]);
        let parts =
            presence_parts(PresenceReport { zone: zone.clone(), complete: true, present, gone, space: 1 });
        let shape = |part: &PresenceReport| (part.complete, part.present.len(), part.gone.len());
        assert_eq!(
            parts.iter().map(shape).collect::<Vec<_>>(),
            [(true, 10_000, 1), (false, 10_000, 0), (false, 5_000, 0)]
        );
        assert!(parts.iter().all(|part| part.zone == zone && part.encoded_len() < 4 << 20));
    }

    #[test]
    fn empty_complete_report_is_one_message() {
        let report = PresenceReport { complete: true, ..PresenceReport::default() };
        assert_eq!(presence_parts(report.clone()), [report]);
    }
}
