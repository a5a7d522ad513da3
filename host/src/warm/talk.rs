//! One question and one answer over a connection, both sealed and encrypted (ChaCha20-Poly1305, RFC 8439).
//!
//! Owns the layout. The one who is asked begins with a challenge, which the question is sealed with, and the answer is sealed with a number
//! of the question: so neither is worth anything to whoever recorded it. Times and sizes are bounded on both sides.
//!
//! Layout, numbers in network order: challenge (16); then each way a frame: length (4), nonce (12), sealed text. The question's text:
//! version (1), what for (1), number (16). The answer's: a `Warm` (postcard).
//!
//! To drop a future of these ends the exchange; the other side sees its connection end.

use std::{future::Future, io, time::Duration};

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Warm;

const VERSION: u8 = 1;
const CHALLENGE_BYTES: usize = 16;
const QUESTION_BYTES: usize = 2 + CHALLENGE_BYTES;
const QUESTION_FRAME_MAX: usize = 256;
/// States are bounded below this, and the rest is small.
const ANSWER_FRAME_MAX: usize = 64 << 20;
/// For all of it. The other node is near, and asked again soon.
const WITHIN: Duration = Duration::from_secs(2);

/// What both nodes have.
pub struct Key(LessSafeKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The connection ended, or could not be.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer within 2 s")]
    Late,
    /// Sealed with another key, for another question, or changed on the way.
    #[error("the other side has another key")]
    Seal,
    /// Of another version, or none of this protocol.
    #[error("the other side speaks another version")]
    Version,
}

impl Key {
    /// Of a secret for this purpose alone. `None` if the library does not take it.
    pub fn new(secret: &[u8; 32]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, secret).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    fn seal(&self, mut text: Vec<u8>, bound_to: &[u8]) -> Result<Vec<u8>, TalkError> {
        let nonce = random::<NONCE_LEN>()?;
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .0
            .seal_in_place_append_tag(nonce_of, Aad::from(bound_to), &mut text);
        sealed.map_err(|_| TalkError::Seal)?;
        let length = (NONCE_LEN + text.len()) as u32;
        Ok([&length.to_be_bytes()[..], &nonce, &text].concat())
    }

    fn open(&self, frame: Vec<u8>, bound_to: &[u8]) -> Result<Vec<u8>, TalkError> {
        let (nonce, sealed) = frame.split_first_chunk::<NONCE_LEN>().ok_or(TalkError::Seal)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(bound_to), &mut sealed);
        let length = opened.map_err(|_| TalkError::Seal)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }
}

fn random<const N: usize>() -> Result<[u8; N], TalkError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system gave no random bytes"))?;
    Ok(bytes)
}

/// So that a question is no answer, whatever it says.
fn bound(purpose: &[u8], challenge: &[u8; CHALLENGE_BYTES]) -> Vec<u8> {
    [purpose, challenge].concat()
}

async fn frame(stream: &mut (impl AsyncRead + Unpin), most: usize) -> Result<Vec<u8>, TalkError> {
    let length = stream.read_u32().await? as usize;
    if length > most {
        return Err(TalkError::Version);
    }
    let mut bytes = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut bytes).await?;
    match read == length {
        true => Ok(bytes),
        false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

async fn timely<T>(talk: impl Future<Output = Result<T, TalkError>>) -> Result<T, TalkError> {
    let talked = tokio::time::timeout(WITHIN, talk).await;
    talked.unwrap_or(Err(TalkError::Late))
}

/// Asks over this connection; with what policies have learned, or without. Gives the answer and its size.
///
/// # Errors
/// Why there is none.
pub async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    key: &Key,
    with_states: bool,
) -> Result<(Warm, usize), TalkError> {
    timely(async {
        let mut challenge = [0; CHALLENGE_BYTES];
        stream.read_exact(&mut challenge).await?;
        let number = random::<CHALLENGE_BYTES>()?;
        let question = [&[VERSION, u8::from(with_states)][..], &number].concat();
        let sealed = key.seal(question, &bound(b"ask", &challenge))?;
        stream.write_all(&sealed).await?;
        let answer = frame(stream, ANSWER_FRAME_MAX).await?;
        let size = answer.len();
        let text = key.open(answer, &bound(b"answer", &number))?;
        let warm = postcard::from_bytes(&text).map_err(|_| TalkError::Version)?;
        Ok((warm, size))
    })
    .await
}

/// Answers one question of this connection with what `tell` says; it is called only when the question is good.
///
/// # Errors
/// Why there is no answer. Whoever asked sees the connection end.
pub async fn answer<T: Future<Output = Warm>>(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    key: &Key,
    tell: impl FnOnce(bool) -> T,
) -> Result<(), TalkError> {
    timely(async {
        let challenge = random::<CHALLENGE_BYTES>()?;
        stream.write_all(&challenge).await?;
        let question = frame(stream, QUESTION_FRAME_MAX).await?;
        let question = key.open(question, &bound(b"ask", &challenge))?;
        let question: [u8; QUESTION_BYTES] = question.try_into().map_err(|_| TalkError::Version)?;
        let [version, with_states, ..] = question;
        let number = question
            .last_chunk::<CHALLENGE_BYTES>()
            .ok_or(TalkError::Version)?;
        if version != VERSION {
            return Err(TalkError::Version);
        }
        let warm = tell(with_states != 0).await;
        let text = postcard::to_stdvec(&warm).map_err(|_| TalkError::Version)?;
        let sealed = key.seal(text, &bound(b"answer", number))?;
        stream.write_all(&sealed).await?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warm::PoolWarm;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; 32]).unwrap()
    }

    fn warm() -> Warm {
        let mut warm = Warm::default();
        warm.pools.insert("shop".to_owned(), PoolWarm::default());
        warm
    }

    fn never() -> Warm {
        panic!("it was asked")
    }

    #[tokio::test]
    async fn a_question_is_answered() {
        let (mut one, mut two) = tokio::io::duplex(1 << 16);
        let (one_key, two_key) = (key(1), key(1));
        let mut wanted = None;
        let answered = answer(&mut two, &two_key, |with_states| {
            wanted = Some(with_states);
            async { warm() }
        });
        let (asked, answered) = tokio::join!(ask(&mut one, &one_key, true), answered);
        assert_eq!(asked.unwrap().0, warm());
        answered.unwrap();
        assert_eq!(wanted, Some(true));
    }

    #[tokio::test]
    async fn whoever_has_another_key_is_told_nothing() {
        let (mut one, mut two) = tokio::io::duplex(1 << 16);
        let (one_key, two_key) = (key(1), key(2));
        let answered = async {
            let answered = answer(&mut two, &two_key, |_| async { never() }).await;
            drop(two);
            answered
        };
        let (asked, answered) = tokio::join!(ask(&mut one, &one_key, false), answered);
        assert!(matches!(asked, Err(TalkError::Io(_))), "{asked:?}");
        assert!(matches!(answered, Err(TalkError::Seal)), "{answered:?}");
    }

    #[tokio::test]
    async fn a_recorded_question_is_no_question() {
        // What was sent in one exchange is sent again in another.
        let (mut one, mut two) = tokio::io::duplex(1 << 16);
        let (mut to, mut from) = tokio::io::duplex(1 << 16);
        let challenge = [7; CHALLENGE_BYTES];
        let question = [&[VERSION, 0][..], &[9; CHALLENGE_BYTES]].concat();
        let recorded = key(1).seal(question, &bound(b"ask", &challenge)).unwrap();
        to.write_all(&recorded).await.unwrap();
        let recorded = frame(&mut from, QUESTION_FRAME_MAX).await.unwrap();
        let length = (recorded.len() as u32).to_be_bytes();
        one.write_all(&[&length[..], &recorded].concat()).await.unwrap();
        let own = key(1);
        let answered = answer(&mut two, &own, |_| async { never() }).await;
        assert!(matches!(answered, Err(TalkError::Seal)), "{answered:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for() {
        let (_one, mut two) = tokio::io::duplex(1 << 16);
        let own = key(1);
        let answered = answer(&mut two, &own, |_| async { Warm::default() }).await;
        assert!(matches!(answered, Err(TalkError::Late)), "{answered:?}");
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_read() {
        let (mut one, mut two) = tokio::io::duplex(1 << 16);
        one.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let own = key(1);
        let answered = answer(&mut two, &own, |_| async { Warm::default() }).await;
        assert!(matches!(answered, Err(TalkError::Version)), "{answered:?}");
    }
}
