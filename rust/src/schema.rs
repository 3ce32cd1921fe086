//! What a program takes and gives.

use serde::{Deserialize, Serialize};

/// A program's name and fields, in the signature's order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Schema {
    /// The program's name.
    pub name: String,
    /// The LM that it asks, for people; empty for a remote program.
    #[serde(default)]
    pub lm: String,
    /// What its inputs are.
    #[serde(default)]
    pub inputs: Vec<Field>,
    /// What its outputs are.
    #[serde(default)]
    pub outputs: Vec<Field>,
    /// What it does, for people.
    #[serde(default)]
    pub description: String,
    /// The last `str` output: what [`collect_all`](crate::PredictionStream::collect_all) collects.
    #[serde(default)]
    pub text: Option<String>,
}

/// One input or output field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type as Python writes it, such as `str` or `list[int]`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// False where it has a default or may be left out.
    #[serde(default)]
    pub required: bool,
}
