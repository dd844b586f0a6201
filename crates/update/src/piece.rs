//! Sends one piece of a file to a socket. On TCP the kernel sends the pages of the file (`sendfile`); on other lanes TLS
//! encrypts the bytes, so they are read into memory first. Both would wait for the disk on a thread that serves logins
//! if a page were not in memory. Blocking threads therefore read such pages first.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use rustix::{
    fs::sendfile,
    io::{ReadWriteFlags, preadv2},
    net::{SendFlags, send},
};
use shardkeep_lanes::Stream;
use shardkeep_wire::{Head, Kind, message::encoded_len, opcode, varint};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::TcpStream,
    sync::Semaphore,
    task::spawn_blocking,
    time::{error::Elapsed, timeout},
};

use crate::{metrics, store::Blob};

/// Most bytes of data in a piece: fifteen pages, which leaves room for the header in a record.
pub(crate) const MAX: u32 = 15 * 4_096;
/// A client that reads nothing for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of the buffer of a cold read.
const SCRATCH: usize = 16 << 10;

/// Tags of the fields of `Piece`.
const TOTAL: u8 = 1 << 3;
const DATA: u8 = 2 << 3 | 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// The bytes of the record before the data.
pub(crate) fn header(request: u32, total: u32, length: u32) -> BytesMut {
    let payload = 1 + varint::length(total.into()) + 1 + varint::length(length.into()) + length as usize;
    let record = encoded_len(Head::Reply(request), payload);
    let mut out = BytesMut::with_capacity(64);
    out.put_u16_le(u16::try_from(record).expect("a piece fits into a record"));
    // The same bytes as `encode_header` writes. That function also reserves room for the payload, which is not needed.
    out.put_u8(Kind::Reply as u8);
    out.put_u16_le(opcode::GET_PIECE);
    varint::encode(request.into(), &mut out);
    varint::encode(payload as u64, &mut out);
    out.put_u8(TOTAL);
    varint::encode(total.into(), &mut out);
    out.put_u8(DATA);
    varint::encode(length.into(), &mut out);
    out
}

/// Sends the reply to a request for a range of a file.
pub(crate) async fn send_piece(
    stream: &mut Stream,
    header: &[u8],
    blob: &Blob,
    range: Range,
) -> io::Result<()> {
    match stream {
        Stream::Tcp(stream) => send_pages(stream, header, blob, range).await,
        stream => {
            let mut record = header.to_vec();
            record.resize(header.len() + range.length as usize, 0);
            blob.file
                .read_exact_at(&mut record[header.len()..], range.offset.into())
                .map_err(truncated_file)?;
            timeout(WRITE_TIMEOUT, stream.write_all(&record)).await.map_err(timed_out)?
        }
    }
}

async fn send_pages(stream: &TcpStream, header: &[u8], blob: &Blob, range: Range) -> io::Result<()> {
    let mut rest = header;
    while !rest.is_empty() {
        // MORE: the kernel sends the header in one packet with the data that follows.
        let writing = stream
            .async_io(Interest::WRITABLE, || Ok(send(stream, rest, SendFlags::MORE | SendFlags::NOSIGNAL)?));
        let sent = timeout(WRITE_TIMEOUT, writing).await.map_err(timed_out)??;
        rest = &rest[sent..];
    }
    let (mut offset, mut left) = (u64::from(range.offset), range.length as usize);
    while left > 0 {
        let writing = stream
            .async_io(Interest::WRITABLE, || Ok(sendfile(stream, &*blob.file, Some(&mut offset), left)?));
        let sent = timeout(WRITE_TIMEOUT, writing).await.map_err(timed_out)??;
        if sent == 0 {
            return Err(truncated_file(io::ErrorKind::UnexpectedEof.into()));
        }
        left -= sent;
    }
    Ok(())
}

/// An unexpected end means that the file was truncated since it was opened; other errors stay the same.
fn truncated_file(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::ErrorKind::InvalidData.into(),
        _ => error,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn timed_out(_: Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// Reads the range from the disk into the page cache, unless it is there.
pub(crate) async fn fill_page_cache(cold_reads: &Semaphore, blob: &Blob, range: Range) -> io::Result<()> {
    if is_cached(&blob.file, range) {
        return Ok(());
    }
    let _permit = cold_reads.acquire().await.map_err(io::Error::other)?;
    metrics::cold_read();
    let file: Arc<File> = blob.file.clone();
    let reading = spawn_blocking(move || {
        let mut scratch = vec![0; SCRATCH];
        let (mut offset, end) = (u64::from(range.offset), u64::from(range.offset) + u64::from(range.length));
        while offset < end {
            match file.read_at(&mut scratch, offset)? {
                0 => break,
                read => offset += read as u64,
            }
        }
        io::Result::Ok(())
    });
    reading.await.map_err(io::Error::other)?
}

/// Looks at the last byte of the range only, because pages are read in order. A wrong answer costs a wait and nothing
/// else.
fn is_cached(file: &File, range: Range) -> bool {
    let last = u64::from(range.offset) + u64::from(range.length) - 1;
    let mut byte = [0];
    preadv2(file, &mut [IoSliceMut::new(&mut byte)], last, ReadWriteFlags::NOWAIT) == Ok(1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shardkeep_wire::{
        Message, Side,
        payload::Piece,
        record::{Decoder, HEADER},
    };

    use super::*;

    #[test]
    fn header_and_data_decode_as_piece_reply() {
        for (request, total, length) in
            [(1, 1, 1), (300, 1 << 20, MAX), (u32::MAX, u32::MAX, MAX), (7, 200, 127)]
        {
            let mut record = header(request, total, length);
            let data = vec![9; length as usize];
            record.extend_from_slice(&data);
            assert!(record.len() <= HEADER + Side::Server.max_record());
            let mut body: Bytes = Decoder::new(Side::Server).next(&mut record).unwrap().unwrap().freeze();
            assert!(record.is_empty());
            let message = Message::split_from(&mut body).unwrap().unwrap();
            let expected = Message::reply(opcode::GET_PIECE, request, &Piece { total, data });
            assert_eq!(message, expected);
            assert!(body.is_empty());
        }
    }
}
