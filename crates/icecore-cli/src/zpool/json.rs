//! Pools as JSON: `zpool list -j`, `zpool get -j` (`fill_pool_info`, zpool_main.c; `zprop_nvlist_one_property`,
//! libzfs_util.c).

use super::get::Value;
use crate::state::Imported;
use icecore_pool::Pool;
use serde_json::{Map, json};

/// A pool's envelope with these properties.
pub fn pool(pool: &Pool, record: &Imported, properties: Map<String, serde_json::Value>) -> serde_json::Value {
    json!({
        "name": record.name,
        "type": "POOL",
        "state": super::status::health(pool.io().vdevs()).to_string(),
        "pool_guid": pool.guid().to_string(),
        "txg": pool.synced().to_string(),
        "spa_version": pool.config().version.unwrap_or(5000).to_string(),
        "zpl_version": "5",
        "properties": properties,
    })
}

/// One property.
pub fn property(v: &Value, exact: bool) -> serde_json::Value {
    let kind = match v.source() {
        "-" => "NONE".to_string(),
        other => other.to_uppercase(),
    };
    json!({"value": v.shown(exact), "source": {"type": kind, "data": "-"}})
}

/// The whole answer of a command.
pub fn print(command: &str, pools: Map<String, serde_json::Value>) {
    let version = json!({"command": command, "vers_major": 0, "vers_minor": 1});
    println!("{}", json!({"output_version": version, "pools": pools}));
}
