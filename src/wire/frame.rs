//! Frames: a four-byte length and that many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// The largest frame unless set otherwise: `jute.maxbuffer` of Apache ZooKeeper, in bytes.
pub const FRAME_BYTES_MAX: usize = 0xf_ffff;

const LENGTH_BYTES: usize = 4;

/// Why a stream can no longer be cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("frame length {0} is negative")]
    Negative(i32),
    /// The length is beyond the bound.
    #[error("frame of {length} bytes is longer than the {max} allowed (jute.maxbuffer)")]
    TooLong {
        /// The length as it stood there.
        length: usize,
        /// The bound it exceeds.
        max: usize,
    },
}

/// Cuts the next frame off the front of `buffer`; `None` while its bytes are not all there.
///
/// # Errors
///
/// When the length is negative or beyond `frame_bytes_max`; the stream is unusable from then on.
pub fn split_frame(buffer: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes(*prefix);
    let length = usize::try_from(length).map_err(|_negative| FrameError::Negative(length))?;
    if length > frame_bytes_max {
        return Err(FrameError::TooLong { length, max: frame_bytes_max });
    }
    if buffer.len() < LENGTH_BYTES + length {
        buffer.reserve(LENGTH_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Appends a frame to `out` whose content is written by `content`.
///
/// # Panics
///
/// When the content is 2 GiB or longer, which the bounds on requests and znodes exclude.
pub fn write_frame(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    content(out);
    let length = out.len() - start - LENGTH_BYTES;
    let length = i32::try_from(length).expect("bounds keep frames below 2 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_back_however_the_stream_is_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8), cut in 1_usize..20,
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| write_frame(&mut stream, |out| out.extend_from_slice(frame)));
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for chunk in stream.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = split_frame(&mut buffer, 40).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, frames);
        }
    }

    #[test]
    fn a_negative_or_huge_length_is_an_error_before_its_bytes_arrive() {
        let split = |bytes: [u8; 4]| split_frame(&mut BytesMut::from(&bytes[..]), 100);
        assert_eq!(split([0xff; 4]), Err(FrameError::Negative(-1)));
        assert_eq!(split([0, 0, 0, 101]), Err(FrameError::TooLong { length: 101, max: 100 }));
        assert_eq!(split([0, 0, 0, 100]), Ok(None));
    }
}
