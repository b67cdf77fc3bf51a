//! What a client can prove: a file of its acknowledgements. One counts only once it is on disk, so what is compared at the end is what
//! clients hold, and not what some buffer held.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::order::{Answer, Order};

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Account it is for, and principal who sent it.
    pub account: String,
    /// What was asked.
    pub order: Order,
    /// The first answer.
    pub answer: Answer,
}

/// A client's file.
#[derive(Debug)]
pub struct Proof(File);

impl Proof {
    /// A new one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn create(file: &Path) -> anyhow::Result<Self> {
        Ok(Self(
            File::create(file).await.with_context(|| file.display().to_string())?,
        ))
    }

    /// Puts one on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn keep(&mut self, acknowledged: &Acknowledged) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(acknowledged)?;
        line.push(b'\n');
        self.0.write_all(&line).await?;
        self.0.flush().await?;
        self.0.sync_data().await.context("fdatasync")
    }
}

/// All that a file holds.
///
/// # Errors
/// When it cannot be read.
pub fn read(file: &Path) -> anyhow::Result<Vec<Acknowledged>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().map(|line| Ok(serde_json::from_str(line)?));
    lines.collect()
}

/// Bytes as text.
pub(crate) mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use contracts::v1;

    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        let orders = [
            Order::Deposit(v1::DepositRequest {
                request_id: "x".to_owned(),
                ..Default::default()
            }),
            Order::Close(v1::CloseTradeRequest::default()),
        ];
        let answers = [
            Answer::Done(vec![0, 255]),
            Answer::Refused {
                reason: "TRADE_CLOSED".to_owned(),
                message: "it \"is\"".to_owned(),
            },
        ];
        let all: Vec<Acknowledged> = orders
            .into_iter()
            .zip(answers)
            .map(|(order, answer)| Acknowledged {
                account: "alice".to_owned(),
                order,
                answer,
            })
            .collect();
        let mut proof = Proof::create(&file).await.unwrap();
        for one in &all {
            proof.keep(one).await.unwrap();
        }
        assert_eq!(read(&file).unwrap(), all);
    }
}
