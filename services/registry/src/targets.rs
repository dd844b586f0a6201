//! The scrape targets of Prometheus (`http_sd_configs`): the admin address of every instance, at `/targets` of the
//! registry's admin endpoints.

use serde_json::{Value, json};
use shardkeep_cluster::{Instance, REGION_ATTRIBUTE, State};

/// One target group per instance, as JSON. An instance stays a target while it is offline, so that its `up` is 0 and
/// alerts see it. An instance that has left is no target.
pub(crate) fn page<'a>(instances: impl Iterator<Item = &'a Instance>) -> String {
    let running = instances.filter(|it| it.state != State::Left && !it.admin_address.is_empty());
    Value::Array(running.map(group).collect()).to_string()
}

fn group(instance: &Instance) -> Value {
    let region = instance.attributes.get(REGION_ATTRIBUTE).map_or("", String::as_str);
    json!({
        "targets": [instance.admin_address],
        "labels": {
            "daemon": instance.id.kind.as_str(),
            "name": instance.id.name,
            "world": instance.world.to_string(),
            "region": region,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shardkeep_cluster::Leadership;
    use shardkeep_types::{DaemonKind, InstanceId, WorldId};

    use super::*;

    fn instance(name: &str, state: State) -> Instance {
        Instance {
            id: InstanceId { kind: DaemonKind::Zone, name: name.into(), incarnation: 1 },
            state,
            world: WorldId(3),
            grpc_address: "10.0.0.1:7000".into(),
            client_address: String::new(),
            admin_address: "10.0.0.1:9100".into(),
            version: String::new(),
            load: 0.0,
            leadership: Leadership::None,
            attributes: BTreeMap::from([(REGION_ATTRIBUTE.to_owned(), "eu".to_owned())]),
        }
    }

    #[test]
    fn targets_are_all_instances_that_have_not_left() {
        let instances =
            [instance("up", State::Up), instance("lost", State::Offline), instance("left", State::Left)];
        let groups: Value = serde_json::from_str(&page(instances.iter())).unwrap();
        let group = |name: &str| {
            json!({
                "targets": ["10.0.0.1:9100"],
                "labels": { "daemon": "zone", "name": name, "world": "3", "region": "eu" },
            })
        };
        assert_eq!(groups, json!([group("up"), group("lost")]));
    }
}
