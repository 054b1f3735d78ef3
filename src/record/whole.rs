//! Records as bytes, off the hot path: those of a session itself, which no ring carries.

use super::{
    FLAG_LARGE, HEADER_BYTES, INLINE_BYTES_MAX, LARGE_RECORD_BYTES, LargeReference, Record,
    RecordHeader, Variable, align_record,
};

/// The body of a record, uncut.
pub(crate) fn body(record: &impl Record) -> Vec<u8> {
    let fixed = record.fixed(usize::MAX);
    let fixed = bytemuck::bytes_of(&fixed);
    let mut body = vec![0; fixed.len() + record.variable_bytes(usize::MAX)];
    let mut out = Variable::new(&mut body);
    out.put(fixed);
    record.write_variable(usize::MAX, &mut out);
    body
}

/// The record with this body as a data block holds it. A long one refers to its body (the
/// reference is the second value), which goes into a large block.
pub(crate) fn record(schema: u16, ticks: u64, body: &[u8]) -> (Vec<u8>, Option<LargeReference>) {
    let inline = align_record(HEADER_BYTES + body.len());
    if inline <= INLINE_BYTES_MAX {
        let header = RecordHeader::new(inline, schema, 0, 0, ticks);
        let mut record = bytemuck::bytes_of(&header).to_vec();
        record.extend_from_slice(body);
        record.resize(inline, 0);
        return (record, None);
    }
    let header = RecordHeader::new(LARGE_RECORD_BYTES, schema, FLAG_LARGE, 0, ticks);
    let reference = LargeReference {
        body_bytes: body.len() as u32,
        chunk: 0,
    };
    let mut record = bytemuck::bytes_of(&header).to_vec();
    record.extend_from_slice(bytemuck::bytes_of(&reference));
    (record, Some(reference))
}
