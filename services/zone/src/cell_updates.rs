//! Publishes cell updates: encoded once, and published once to each gateway that watches the cell.

use shardkeep_link::PublishKind;
use shardkeep_sim::{CellForm, CellUpdate, Input, Ring};
use shardkeep_types::CellId;

use crate::{
    metrics,
    publish::{encode, group},
    shard::Shard,
};

impl Shard {
    pub(crate) fn request_keyframes(&mut self, cell: CellId) {
        for ring in [Ring::Near, Ring::Outer] {
            self.apply(Input::Keyframe { cell, ring });
        }
    }

    pub(crate) fn publish(&self, update: &CellUpdate) {
        let Some(&epoch) = self.cell_epochs.get(&update.cell) else { return };
        let message = encode(update);
        metrics::published(update.ring, update.form == CellForm::Keyframe, message.payload.len());
        let kind = match update.form {
            CellForm::Keyframe => PublishKind::Keyframe,
            CellForm::Part => PublishKind::Part,
            CellForm::Delta => PublishKind::Delta,
        };
        self.hub.publish(group(self.world, update.cell, update.ring), epoch, kind, message);
    }
}
