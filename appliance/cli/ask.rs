//! Questions to a member.

use super::answer::{Answer, Exit, Fault};
use super::render::{self, Width};
use holdfast_api::{
    Client, ClientError, ClusterStatus, DropReasons, DropReasonsRequest, Failure, FailureKind,
    Health, RequestKind, ResponseKind, Role, StatusRequest,
};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

pub(super) const STATUS: RequestKind = RequestKind::Status(StatusRequest {});

/// A member answers within milliseconds; one that needs longer than this is stuck.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// An order waits for a majority, a handover for an election as well.
const ORDER_MAX: Duration = Duration::from_secs(30);

/// Asks the member behind `socket` and shows its answer.
pub(super) fn member(socket: &Path, kind: RequestKind, width: Width) -> Result<Answer, Fault> {
    match call(socket, kind)? {
        ResponseKind::Status(status) => {
            let well = Health::try_from(status.health) == Ok(Health::Ok);
            Ok(Answer::new(render::status(&status), &status)?.ending(end(well)))
        }
        ResponseKind::SaList(list) => Answer::new(render::sa_list(&list, width), &list),
        ResponseKind::FlowList(list) => {
            let mut answer = Answer::new(render::flow_list(&list, width), &list)?;
            if list.truncated {
                answer.notes.push("there are more flows; see --limit".to_owned());
            }
            Ok(answer)
        }
        ResponseKind::TargetList(list) => Answer::new(render::target_list(&list, width), &list),
        ResponseKind::ClusterStatus(cluster) => {
            let text = render::cluster_status(&cluster, width);
            Ok(Answer::new(text, &cluster)?.ending(end(is_whole(&cluster))))
        }
        ResponseKind::StoreList(list) => {
            let mut answer = Answer::new(render::store_list(&list, width), &list)?;
            if list.truncated {
                answer.notes.push("there are more records; see --limit".to_owned());
            }
            Ok(answer.ending(end(list.takeover_ready && list.failed == 0)))
        }
        ResponseKind::Done(done) => {
            let text = format!("{} (operation {})", render::clean(&done.text), done.operation);
            Answer::new(text, &done)
        }
        ResponseKind::Failure(failure) => Err(refused(failure)),
        ResponseKind::DropReasons(_) => Err(misunderstood()),
    }
}

/// Asks for the drop reasons.
pub(super) fn drop_reasons(socket: &Path) -> Result<DropReasons, Fault> {
    match call(socket, RequestKind::DropReasons(DropReasonsRequest {}))? {
        ResponseKind::DropReasons(reasons) => Ok(reasons),
        ResponseKind::Failure(failure) => Err(refused(failure)),
        _ => Err(misunderstood()),
    }
}

const fn end(well: bool) -> Exit {
    if well { Exit::Ok } else { Exit::Degraded }
}

/// Whether one more failure could be survived.
fn is_whole(cluster: &ClusterStatus) -> bool {
    let absent = i32::from(Role::Unreachable);
    cluster.owner.is_some()
        && cluster.leader.is_some()
        && cluster.members.iter().all(|member| member.role != absent)
}

fn call(socket: &Path, kind: RequestKind) -> Result<ResponseKind, Fault> {
    let order = matches!(
        kind,
        RequestKind::Handover(_)
            | RequestKind::TargetSet(_)
            | RequestKind::ChangeMembers(_)
            | RequestKind::CancelMemberChange(_)
    );
    let timeout = if order { ORDER_MAX } else { ANSWER_MAX };
    let mut client =
        Client::connect(socket, timeout).map_err(|error| unreachable(error, socket))?;
    client.call(kind).map_err(|error| unreachable(error, socket))
}

fn unreachable(error: ClientError, socket: &Path) -> Fault {
    let path = socket.display();
    match error {
        ClientError::Connect { source, .. } => match source.kind() {
            ErrorKind::NotFound => Fault::failure(
                format_args!("there is no socket {path}; is holdfastd running?"),
                "start holdfastd, or name its socket with --socket (member.socket in its \
                 configuration)",
            ),
            ErrorKind::ConnectionRefused => Fault::failure(
                format_args!("nobody listens on {path}; the daemon that made it has ended"),
                "look at its log, then start holdfastd",
            ),
            ErrorKind::PermissionDenied => Fault::failure(
                format_args!("this user may not open {path}"),
                "run holdfast as root",
            ),
            _ => Fault::failure(format_args!("cannot reach {path}: {source}"), "check --socket"),
        },
        ClientError::Io(source) => match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Fault::failure(
                format_args!("the daemon behind {path} did not answer in time"),
                "look at its log; `holdfast drop-reasons` shows its counters all the same",
            ),
            _ => Fault::failure(
                format_args!("the daemon behind {path} broke off: {source}"),
                "look at its log",
            ),
        },
        ClientError::Frame(_) | ClientError::NotUnderstood => misunderstood(),
    }
}

fn misunderstood() -> Fault {
    Fault::failure(
        "the daemon's answer is not understood",
        "use the holdfast that belongs to the daemon (holdfast --version)",
    )
}

fn refused(failure: Failure) -> Fault {
    let exit = match FailureKind::try_from(failure.kind) {
        Ok(FailureKind::Usage) => Exit::Usage,
        Ok(FailureKind::Degraded) => Exit::Degraded,
        Ok(FailureKind::NotOwner) => Exit::NotOwner,
        Ok(FailureKind::Failed) | Err(_) => Exit::Failure,
    };
    let (message, next_action) = (render::clean(&failure.message), failure.next_action);
    Fault { exit, message, next_action: render::clean(&next_action) }
}
