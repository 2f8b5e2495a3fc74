//! Everything of the plugin goes from a node: pods' links, the table, the store. Routes between nodes are the agent's.

use crate::names::{LINK_PREFIX, SHAPER_PREFIX};
use crate::netlink::Link;
use crate::node::Node;
use crate::spec::Result;
use crate::store::Store;
use crate::verbs::combine;

/// Removes every attachment of every network, links of ours without a record, the table, and the store. Pods that still
/// run lose their network. Says what was removed.
pub fn cleanup(store: &Store) -> Result<String> {
    let mut node = Node::open(store)?;
    let records: Vec<_> = store.read()?.records().cloned().collect();
    let mut errors = Vec::new();
    for record in &records {
        errors.extend(node.remove(record));
    }
    let ours = |link: &Link| link.name.starts_with(LINK_PREFIX) || link.name.starts_with(SHAPER_PREFIX);
    let made = |link: &Link| matches!(link.kind.as_deref(), Some("veth" | "ifb"));
    let links: Vec<Link> = node.rtnl().links()?.into_iter().filter(|link| ours(link) && made(link)).collect();
    for link in &links {
        errors.extend(node.rtnl().delete_link(link).err().map(Into::into));
    }
    errors.extend(node.nft().and_then(|nft| Ok(nft.remove_table()?)).err());
    combine(errors)?;
    store.remove()?;
    Ok(format!(
        "removed {} attachments, {} stray links, the nftables table and the store",
        records.len(),
        links.len()
    ))
}
