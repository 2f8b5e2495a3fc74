//! Transactions on the table: all of a batch happens, or nothing.

use ipnet::IpNet;
use nix::errno::Errno;

use super::element::{self, Element};
use super::table::{self, Chain, Set, TABLE};
use crate::netlink::{
    Attributes, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, is_outcome, outcome, push_message,
};
use crate::netlink::{Channel, NETFILTER, NetlinkError, Writer};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
const NLM_F_APPEND: u16 = 0x800;
const NFPROTO_INET: u8 = 1;
const NFPROTO_UNSPEC: u8 = 0;

const NFT_SET_INTERVAL: u32 = 4;
const NFT_SET_MAP: u32 = 8;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// What nft notes beside a set so that it reads the keys the right way round: type 0, length 4, a number.
const KEY_IN_HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};
/// Attributes have 16-bit lengths, and an element takes up to 100 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// A key, and whether it ends an interval.
type SetKey = (Vec<u8>, bool);

/// A connection to nf_tables of the namespace in which it was opened.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
}

/// Messages of one transaction.
#[derive(Debug, Default)]
struct Batch {
    messages: Vec<(u16, u16, Vec<u8>)>,
}

/// `struct nfgenmsg`, which starts every message.
fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

impl Batch {
    fn push(&mut self, kind: u16, flags: u16, attributes: &Writer) {
        let mut body = header(NFPROTO_INET, 0);
        body.extend(&attributes.0);
        self.messages.push((NFNL_SUBSYS_NFTABLES << 8 | kind, flags, body));
    }

    fn table(&mut self, kind: u16, flags: u16) {
        self.push(kind, flags, &Writer::default().text(1, TABLE));
    }

    fn set(&mut self, set: Set, id: u32) {
        let (key_type, key_length) = set.key_type();
        let interval = if set.interval { NFT_SET_INTERVAL } else { 0 };
        let map = if set.data_type().is_some() { NFT_SET_MAP } else { 0 };
        let mut attributes = Writer::default()
            .text(1, TABLE)
            .text(2, set.name)
            .be32(3, interval | map)
            .be32(4, key_type)
            .be32(5, key_length)
            .be32(10, id);
        if set.is_host_order() {
            attributes = attributes.bytes(13, &KEY_IN_HOST_ORDER);
        }
        if let Some((data_type, data_length)) = set.data_type() {
            attributes = attributes.be32(6, data_type).be32(7, data_length);
        }
        self.push(NFT_MSG_NEWSET, NLM_F_CREATE, &attributes);
    }

    fn chain(&mut self, chain: &Chain) {
        let mut attributes = Writer::default().text(1, TABLE).text(3, chain.name);
        if let Some(hook) = chain.hook {
            attributes = attributes
                .nest(4, |inner| inner.be32(1, hook.number).be32(2, hook.priority as u32))
                .text(7, hook.kind);
        }
        self.push(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &attributes);
    }

    fn rules(&mut self, chain: &Chain) {
        for rule in &chain.rules {
            let attributes = Writer::default().text(1, TABLE).text(2, chain.name).nest(4, |list| {
                rule.iter().fold(list, |list, expression| list.nest(1, |_| expression.encode()))
            });
            self.push(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &attributes);
        }
    }

    fn elements(&mut self, kind: u16, set: Set, elements: &[Writer]) {
        let flags = if kind == NFT_MSG_NEWSETELEM { NLM_F_CREATE } else { 0 };
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let list = |list| chunk.iter().fold(list, |list: Writer, one| list.nest(1, |_| one.clone()));
            self.push(kind, flags, &Writer::default().text(1, TABLE).text(2, set.name).nest(3, list));
        }
    }

    /// Elements, gathered per set.
    fn add(&mut self, elements: &[Element]) {
        for set in table::sets() {
            let of_set: Vec<Writer> = elements.iter().filter(|e| e.set() == set).map(encode).collect();
            self.elements(NFT_MSG_NEWSETELEM, set, &of_set);
        }
    }

    fn exclude(&mut self, nets: &[IpNet]) {
        for (set, v4) in [(table::EXCLUDED[0], true), (table::EXCLUDED[1], false)] {
            let keys = element::intervals(nets, v4);
            let elements: Vec<Writer> = keys.iter().map(|(key, end)| encode_interval(key, *end)).collect();
            self.elements(NFT_MSG_NEWSETELEM, set, &elements);
        }
    }
}

fn encode_key(key: &[u8]) -> Writer {
    Writer::default().nest(1, |data| data.bytes(1, key))
}

fn encode(element: &Element) -> Writer {
    let key = encode_key(&element.key());
    match element.data() {
        Some(data) => key.nest(2, |value| value.bytes(1, &data)),
        None => key,
    }
}

fn encode_interval(key: &[u8], end: bool) -> Writer {
    if end { encode_key(key).be32(3, NFT_SET_ELEM_INTERVAL_END) } else { encode_key(key) }
}

impl Nft {
    /// A connection in the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { channel: Channel::open(NETFILTER)? })
    }

    /// Makes the table anew, with these elements: whatever was in it before is gone in the same instant.
    pub fn rebuild(&mut self, elements: &[Element], excluded: &[IpNet]) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        // Only a table that exists can be deleted.
        batch.table(NFT_MSG_NEWTABLE, NLM_F_CREATE);
        batch.table(NFT_MSG_DELTABLE, 0);
        batch.table(NFT_MSG_NEWTABLE, NLM_F_CREATE);
        for (id, set) in table::sets().into_iter().enumerate() {
            batch.set(set, id as u32 + 1);
        }
        let chains = table::chains();
        for chain in &chains {
            batch.chain(chain);
        }
        for chain in &chains {
            batch.rules(chain);
        }
        batch.exclude(excluded);
        batch.add(elements);
        self.commit("make the nftables table", batch)
    }

    /// Removes the table, if there is one.
    pub fn remove_table(&mut self) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        batch.table(NFT_MSG_NEWTABLE, NLM_F_CREATE);
        batch.table(NFT_MSG_DELTABLE, 0);
        self.commit("remove the nftables table", batch)
    }

    /// Adds elements; those that are there already are what was wanted. `Ok(false)`: there is no such table, or it
    /// lacks a set.
    pub fn add(&mut self, elements: &[Element]) -> Result<bool, NetlinkError> {
        let mut batch = Batch::default();
        batch.add(elements);
        match self.commit("add nftables elements", batch) {
            Ok(()) => Ok(true),
            Err(error) if error.errno == Errno::ENOENT => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes elements, each by itself: one that is gone must not keep the others.
    pub fn remove(&mut self, elements: &[Element]) -> Result<(), NetlinkError> {
        for element in elements {
            let mut batch = Batch::default();
            batch.elements(NFT_MSG_DELSETELEM, element.set(), &[encode(element)]);
            match self.commit("remove an nftables element", batch) {
                Err(error) if error.errno != Errno::ENOENT => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Replaces the destinations that are not masqueraded.
    pub fn replace_excluded(&mut self, nets: &[IpNet]) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        for set in table::EXCLUDED {
            // Without elements it means all of them.
            batch.push(NFT_MSG_DELSETELEM, 0, &Writer::default().text(1, TABLE).text(2, set.name));
        }
        batch.exclude(nets);
        self.commit("set the destinations that are not masqueraded", batch)
    }

    /// Whether exactly these destinations are not masqueraded. `None`: there is no such table.
    pub fn excludes(&mut self, nets: &[IpNet]) -> Result<Option<bool>, NetlinkError> {
        for (set, v4) in [(table::EXCLUDED[0], true), (table::EXCLUDED[1], false)] {
            let Some(mut found) = self.keys(set)? else { return Ok(None) };
            let mut wanted = element::intervals(nets, v4);
            found.sort_unstable();
            wanted.sort_unstable();
            if found != wanted {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    /// Whether all of these elements are in the table.
    pub fn contains(&mut self, elements: &[Element]) -> Result<bool, NetlinkError> {
        for set in table::sets() {
            let mut wanted = elements.iter().filter(|element| element.set() == set).peekable();
            if wanted.peek().is_none() {
                continue;
            }
            let Some(found) = self.keys(set)? else { return Ok(false) };
            if wanted.any(|element| !found.contains(&(element.key(), false))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes everything that none of these elements is, as a killed process may have left it.
    pub fn keep_only(&mut self, elements: &[Element]) -> Result<usize, NetlinkError> {
        let mut removed = 0;
        for set in table::sets().into_iter().filter(|set| !set.interval) {
            let Some(found) = self.keys(set)? else { return Ok(removed) };
            let known: Vec<Vec<u8>> =
                elements.iter().filter(|element| element.set() == set).map(Element::key).collect();
            for (key, _) in found.into_iter().filter(|(key, _)| !known.contains(key)) {
                let mut batch = Batch::default();
                batch.elements(NFT_MSG_DELSETELEM, set, &[encode_key(&key)]);
                match self.commit("remove an nftables element", batch) {
                    Err(error) if error.errno != Errno::ENOENT => return Err(error),
                    _ => removed += 1,
                }
            }
        }
        Ok(removed)
    }

    /// Keys of a set, and whether each ends an interval. `None`: no such set.
    fn keys(&mut self, set: Set) -> Result<Option<Vec<SetKey>>, NetlinkError> {
        let mut body = header(NFPROTO_INET, 0);
        body.extend(Writer::default().text(1, TABLE).text(2, set.name).0);
        let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM;
        loop {
            match self.channel.request("list nftables elements", (kind, NLM_F_DUMP), &body) {
                Ok(Some(answers)) => {
                    return Ok(Some(
                        answers.iter().flat_map(|answer| parse_elements(&answer.body)).collect(),
                    ));
                }
                // Somebody changed the ruleset meanwhile.
                Ok(None) => {}
                Err(error) if error.errno == Errno::EINTR => {}
                Err(error) if error.errno == Errno::ENOENT => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn commit(&mut self, what: &str, batch: Batch) -> Result<(), NetlinkError> {
        if batch.messages.is_empty() {
            return Ok(());
        }
        let first = self.channel.next_sequence();
        let mut bytes = Vec::new();
        let edge = header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
        push_message(&mut bytes, (NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST), first, &edge);
        let mut last = first;
        let count = batch.messages.len();
        for (index, (kind, flags, body)) in batch.messages.into_iter().enumerate() {
            last = self.channel.next_sequence();
            // The kernel answers in order, so an answer to the last message says that all were heard.
            let acknowledge = if index + 1 == count { NLM_F_ACK } else { 0 };
            push_message(&mut bytes, (kind, flags | NLM_F_REQUEST | acknowledge), last, &body);
        }
        let end = self.channel.next_sequence();
        push_message(&mut bytes, (NFNL_MSG_BATCH_END, NLM_F_REQUEST), end, &edge);
        self.channel.send(what, &bytes)?;
        let mut result = Ok(());
        loop {
            for message in self.channel.receive(what)? {
                if !is_outcome(&message) || !(first..=end).contains(&message.sequence) {
                    continue;
                }
                // The first error is the cause; what comes after may follow from it.
                result = result.and(outcome(what, &message));
                // An error of the batch as a whole (no permission) carries its first sequence number.
                if message.sequence == last || message.sequence == first || message.sequence == end {
                    return result;
                }
            }
        }
    }
}

fn parse_elements(body: &[u8]) -> Vec<SetKey> {
    let attributes = Attributes(body.get(4..).unwrap_or_default());
    let lists = attributes.filter(|(kind, _)| *kind == 3).flat_map(|(_, list)| Attributes(list));
    lists.filter_map(|(_, element)| parse_element(element)).collect()
}

fn parse_element(element: &[u8]) -> Option<SetKey> {
    let find = |wanted: u16| Attributes(element).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (_, key) = Attributes(find(1)?).find(|(kind, _)| *kind == 1)?;
    let flags = find(3).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes));
    Some((key.to_vec(), flags & NFT_SET_ELEM_INTERVAL_END != 0))
}
