//! Pools as JSON: `zpool list -j`, `zpool get -j`, `zpool status -j` (`fill_pool_info`, zpool_main.c; `zprop_nvlist_one_property`,
//! libzfs_util.c).

use crate::numbers::Numbers;
use crate::state::Imported;
use icecore_pool::Pool;
use serde_json::{Map, Value, json};

/// What every command says of a pool.
pub fn head(pool: &Pool, record: &Imported, numbers: Numbers) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("name".into(), record.name.clone().into());
    out.insert("state".into(), super::status::health(pool.io().vdevs()).to_string().into());
    out.insert("pool_guid".into(), numbers.exact(pool.guid().0));
    out.insert("txg".into(), numbers.exact(pool.synced().0));
    out.insert("spa_version".into(), numbers.exact(pool.config().version.unwrap_or(5000)));
    out.insert("zpl_version".into(), numbers.exact(5));
    out
}

/// A pool's envelope with these properties.
pub fn pool(pool: &Pool, record: &Imported, numbers: Numbers, properties: Map<String, Value>) -> Value {
    let mut out = head(pool, record, numbers);
    out.insert("type".into(), "POOL".into());
    out.insert("properties".into(), properties.into());
    out.into()
}

/// One property.
pub fn property(v: &super::get::Value, numbers: Numbers) -> Value {
    let kind = match v.source() {
        "-" => "NONE".to_string(),
        other => other.to_uppercase(),
    };
    let shown = v.shown(numbers != Numbers::Human);
    json!({"value": numbers.text(shown), "source": {"type": kind, "data": "-"}})
}

/// The whole answer of a command.
pub fn print(command: &str, pools: Map<String, Value>) {
    let version = json!({"command": command, "vers_major": 0, "vers_minor": 1});
    println!("{}", json!({"output_version": version, "pools": pools}));
}
