//! A batch as the collector's `ExportLogsServiceRequest`. Written by hand because its records are encoded already.

use bytes::{Buf, BufMut, Bytes};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceResponse, common::v1::InstrumentationScope, resource::v1::Resource,
};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, message, skip_field},
};
use shardkeep_rpc::fields::{delimited_len, encode_field_header};
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::queue::Batch;

/// The only method of the collector.
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// `ExportLogsServiceRequest.resource_logs`.
const RESOURCE_LOGS: u32 = 1;
/// `ResourceLogs.resource` and `.scope_logs`.
const RESOURCE: u32 = 1;
const SCOPE_LOGS: u32 = 2;
/// `ScopeLogs.scope`.
const SCOPE: u32 = 1;

/// A request to export, whose every part is encoded. To copy it costs nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ExportRequest {
    /// The resource, with its key and length.
    resource: Bytes,
    /// The scope, likewise.
    scope: Bytes,
    pub(super) batch: Batch,
}

impl ExportRequest {
    /// A request without records.
    pub(super) fn of(resource: &Resource) -> Self {
        let scope = InstrumentationScope { name: "shardkeep".into(), ..InstrumentationScope::default() };
        Self { resource: field(RESOURCE, resource), scope: field(SCOPE, &scope), batch: Batch::default() }
    }

    /// The same with these records.
    pub(super) fn with(&self, batch: Batch) -> Self {
        Self { batch, ..self.clone() }
    }

    pub(super) async fn send(self, collector: Channel) -> Result<(), Status> {
        let mut client = Grpc::new(collector);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Self, ExportLogsServiceResponse>::default();
        client.unary(Request::new(self), PathAndQuery::from_static(EXPORT), codec).await?;
        Ok(())
    }

    fn scope_logs(&self) -> usize {
        self.scope.len() + self.batch.records.len()
    }

    fn resource_logs(&self) -> usize {
        self.resource.len() + delimited_len(SCOPE_LOGS, self.scope_logs())
    }
}

fn field(tag: u32, content: &impl Message) -> Bytes {
    let mut out = Vec::new();
    message::encode(tag, content, &mut out);
    out.into()
}

impl Message for ExportRequest {
    fn encode_raw(&self, out: &mut impl BufMut) {
        encode_field_header(out, RESOURCE_LOGS, self.resource_logs());
        out.put_slice(&self.resource);
        encode_field_header(out, SCOPE_LOGS, self.scope_logs());
        out.put_slice(&self.scope);
        out.put_slice(&self.batch.records);
    }

    fn encoded_len(&self) -> usize {
        delimited_len(RESOURCE_LOGS, self.resource_logs())
    }

    /// Requests are only sent; what is not one's own to read is left alone.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, from, context)
    }

    fn clear(&mut self) {
        self.batch = Batch::default();
    }
}
