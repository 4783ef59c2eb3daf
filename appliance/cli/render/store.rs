//! The common store: how current, under whom, record by record.

use super::Width;
use super::table::{Column, Table};
use super::text::{clean, counted};
use super::time::duration;
use holdfast_api::{Named, RecordKind, RecordReadiness, StoreList, StoreRecord};

/// The records of one common address.
pub(in crate::cli) fn store_list(list: &StoreList, width: Width) -> String {
    let mut text = head(list);
    if !list.records.is_empty() {
        text.push('\n');
        text.push_str(&table(list, width));
    }
    text.push_str(&summary(list));
    if !list.refused_changes.is_empty() {
        let mut table = Table::new(width, &[Column::Number("COUNT"), Column::Text("REFUSED FOR")]);
        for refusal in &list.refused_changes {
            table.push([refusal.count.to_string(), refusal.reason.clone()]);
        }
        text.push_str("\n\n");
        text.push_str(&table.render());
    }
    text
}

fn head(list: &StoreList) -> String {
    let owner = list.owner.as_ref().map_or_else(
        || "nobody".to_owned(),
        |owner| format!("member {} (epoch {})", owner.member, owner.epoch),
    );
    let lag = match (list.follows, list.lag_entries) {
        (false, _) => "no leader known: this may be old".to_owned(),
        (true, 0) => "up to date".to_owned(),
        (true, lag) => format!("{} behind", counted_entries(lag)),
    };
    let ready = if list.takeover_ready { "yes" } else { "no" };
    format!(
        "Address   {}\nOwner     {owner}\nSeen by   member {}, applied {}, {lag}\n\
         Takeover  {ready}: {}\n",
        clean(&list.common_address),
        list.member,
        list.applied_index,
        clean(&list.takeover_reason),
    )
}

fn counted_entries(count: u64) -> String {
    let plural = if count == 1 { "entry" } else { "entries" };
    format!("{count} {plural}")
}

fn table(list: &StoreList, width: Width) -> String {
    let mut table = Table::new(
        width,
        &[
            Column::Key("RECORD"),
            Column::Key("SPI"),
            Column::Key("OF IKE SA"),
            Column::WideText("CONNECTION"),
            Column::WideText("PEER"),
            Column::Number("OWNER"),
            Column::WideNumber("INCARNATION"),
            Column::Number("EPOCH"),
            Column::Key("STATE"),
            Column::Text("WHY"),
        ],
    );
    for record in &list.records {
        table.push(row(record));
    }
    table.render()
}

fn row(record: &StoreRecord) -> [String; 10] {
    let kind = RecordKind::try_from(record.kind).ok();
    let readiness = RecordReadiness::try_from(record.readiness);
    let (spi, of) = match kind {
        Some(RecordKind::IkeSa) => (format!("{:016x}", record.ike_spi), "-".to_owned()),
        _ => (format!("{:08x}", record.inbound_spi), format!("{:016x}", record.ike_spi)),
    };
    let kept = |keep_ms| format!("{}; kept for {}", record.reason, duration(keep_ms));
    [
        kind.map_or("unknown", RecordKind::name).to_owned(),
        spi,
        of,
        record.connection.clone(),
        if record.peer.is_empty() { "-".to_owned() } else { record.peer.clone() },
        record.owner_member.to_string(),
        record.owner_incarnation.to_string(),
        record.epoch.to_string(),
        readiness.map_or("unknown", RecordReadiness::name).to_owned(),
        if record.reason.is_empty() { "-".to_owned() } else { kept(record.keep_ms) },
    ]
}

fn summary(list: &StoreList) -> String {
    let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let (ike_sas, child_sas) = (size(list.ike_sas), size(list.child_sas));
    if ike_sas == 0 && child_sas == 0 {
        return "No records.".to_owned();
    }
    format!(
        "{}, {} with as many relations: {} inherited, {} pending, {} failed.",
        counted(ike_sas, "IKE SA"),
        counted(child_sas, "Child SA"),
        list.inherited,
        list.pending,
        list.failed,
    )
}
