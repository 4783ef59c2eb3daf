//! The common store as `holdfast store list` shows it, and the SAs as `holdfast sa list` does.

use super::Scene;
use holdfast_bed::error::BedError;
use serde_json::Value;
use std::collections::BTreeSet;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    /// "ike_sa", "child_sa" or "relation".
    pub(crate) kind: String,
    /// Our SPI of the IKE SA it is of or belongs to.
    pub(crate) ike_spi: String,
    /// Our SPI of the Child SA; zeros in records of IKE SAs.
    pub(crate) child_spi: String,
    /// The connection.
    pub(crate) connection: String,
}

/// What one member answers about the store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// The records.
    pub(crate) records: BTreeSet<Record>,
    /// Member and epoch under which records stand.
    pub(crate) owners: BTreeSet<(u64, u64)>,
    /// How records stand.
    pub(crate) readiness: BTreeSet<String>,
    /// Records under an earlier owner.
    pub(crate) inherited: u64,
    /// The whole answer.
    pub(crate) answer: Value,
}

impl Store {
    /// Records of one kind.
    pub(crate) fn of(&self, kind: &str) -> BTreeSet<&Record> {
        self.records.iter().filter(|record| record.kind == kind).collect()
    }

    /// Connections that have an IKE SA.
    pub(crate) fn connections(&self) -> BTreeSet<String> {
        self.of("ike_sa").into_iter().map(|record| record.connection.clone()).collect()
    }
}

/// The parts of an SA that must be the same after a takeover, whoever negotiated it when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Terms {
    connection: String,
    peer: String,
    suite: String,
    selectors: String,
}

impl Scene {
    /// The store as `member` has it.
    pub(crate) fn store(&self, member: u8) -> Result<Store, BedError> {
        let answer = self.cluster.ask(member, &["store", "list"])?;
        let text = |record: &Value, field: &str| record[field].as_str().unwrap_or("").to_owned();
        let all = answer["records"].as_array().cloned().unwrap_or_default();
        let record = |of: &Value| Record {
            kind: text(of, "kind"),
            ike_spi: text(of, "ike_spi"),
            child_spi: text(of, "inbound_spi"),
            connection: text(of, "connection"),
        };
        let number = |of: &Value, field: &str| of[field].as_u64().unwrap_or(0);
        Ok(Store {
            records: all.iter().map(record).collect(),
            owners: all.iter().map(|r| (number(r, "owner_member"), number(r, "epoch"))).collect(),
            readiness: all.iter().map(|r| text(r, "readiness")).collect(),
            inherited: number(&answer, "inherited"),
            answer,
        })
    }

    /// The SAs that `member` runs, as records would name them: an IKE SA by the SPI that is ours.
    pub(crate) fn running_sas(&self, member: u8) -> BTreeSet<(String, String)> {
        let list = self.cluster.ask(member, &["sa", "list"]).expect("SAs");
        let children = list["child_sas"].as_array().cloned().unwrap_or_default();
        let spi = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_owned();
        children.iter().map(|c| (spi(c, "ike_spi"), spi(c, "inbound_spi"))).collect()
    }

    /// Peers, algorithms and selectors of the Child SAs of `member`, with the proven identities.
    pub(crate) fn terms(&self, member: u8) -> (BTreeSet<Terms>, BTreeSet<(String, String)>) {
        let list = self.cluster.ask(member, &["sa", "list"]).expect("SAs");
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_owned();
        let children = list["child_sas"].as_array().cloned().unwrap_or_default();
        let ike_sas = list["ike_sas"].as_array().cloned().unwrap_or_default();
        let terms = |child: &Value| Terms {
            connection: text(child, "connection"),
            peer: text(child, "peer"),
            suite: text(child, "suite"),
            selectors: format!("{} {}", child["local_ts"], child["remote_ts"]),
        };
        let identities = |ike: &Value| (text(ike, "connection"), text(ike, "identity"));
        (children.iter().map(terms).collect(), ike_sas.iter().map(identities).collect())
    }

    /// Waits until every running member has the same records, all under `owner`: only then is the
    /// owner's next failure a fair test.
    pub(crate) fn wait_until_current(&mut self, owner: u8) -> Store {
        self.cluster.expect_running().expect("nobody has ended by itself");
        self.wait_for("the store to be current", |scene| {
            let running = scene.cluster.running();
            let stores: Result<Vec<Store>, _> =
                running.iter().map(|member| scene.store(*member)).collect();
            let Ok(stores) = stores else { return false };
            let Some(first) = stores.first() else { return false };
            let all_of_owner = stores.iter().all(|store| {
                let of_owner = |(member, _): &(u64, u64)| *member == u64::from(owner);
                store.inherited == 0 && store.owners.iter().all(of_owner)
            });
            let same = stores.iter().all(|store| store.records == first.records);
            let owns = scene.cluster.status(owner).is_ok_and(|s| s.owner() == Some(owner));
            all_of_owner && same && owns
        });
        self.store(owner).expect("a store")
    }
}
