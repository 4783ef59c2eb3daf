//! The operator's API: what the CLI asks a member and what the member answers.
//!
//! What it is: messages (prost, so that an older CLI understands a newer member), their framing on
//! a Unix socket, and a blocking client.
//!
//! What it is not: it knows nothing of how a member works; every type here is made of numbers,
//! names and texts. No key material has a place in any message.
//!
//! ```text
//!   holdfast (CLI)                                   holdfastd (controller)
//!      Client::call(Request) --- frame ---> Unix socket ---> Request::decode
//!      Response::decode      <-- frame ---                <--- Response
//!
//!   frame = length (u32, big endian, of what follows) | message
//! ```
//!
//! Contract:
//! * one request, one response, in order, on one connection;
//! * a frame is at most [`FRAME_BYTES_MAX`] bytes; a longer one closes the connection;
//! * fields are only ever added, tags are never used again;
//! * `serde_json` renders every message with stable `snake_case` names; numbers of more than 53
//!   bits of meaning (SPIs) are hexadecimal texts there.
#![forbid(unsafe_code)]

mod client;
mod frame;
mod messages;
mod names;
mod store;

pub use client::{Client, ClientError};
pub use frame::{FRAME_BYTES_MAX, FrameError, FrameReader, encode_frame};
pub use messages::{
    CancelMemberChange, ChangeMembers, ChildSa, ClusterStatus, ClusterStatusRequest, Done,
    DropReason, DropReasons, DropReasonsRequest, Failure, FailureKind, Flow, FlowList,
    FlowListRequest, Handover, Health, IkeSa, MemberInfo, NewMember, Ownership, Problem, Refusal,
    Request, RequestKind, Response, ResponseKind, Role, SaList, SaListRequest, Status,
    StatusRequest, Target, TargetList, TargetListRequest, TargetSet,
};
pub use names::Named;
pub use store::{RecordKind, RecordReadiness, StoreList, StoreListRequest, StoreRecord};
