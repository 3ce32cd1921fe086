//! A program's result.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::Usage;

/// A program's outputs by field, in the signature's order, and what the run used.
///
/// ```
/// use dspy_live::Prediction;
///
/// #[derive(serde::Deserialize)]
/// struct Answer { answer: String, confidence: f64 }
///
/// let prediction: Prediction =
///     serde_json::from_value(serde_json::json!({"outputs": {"answer": "42", "confidence": 0.9}}))?;
/// assert_eq!(prediction["answer"], "42");
/// assert_eq!(prediction.get::<f64>("confidence")?, 0.9);
/// let answer: Answer = prediction.parse()?;
/// assert_eq!(answer.answer, "42");
/// # assert!(answer.confidence > 0.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prediction {
    /// One JSON value per output field.
    pub outputs: Map<String, Value>,
    /// What each LM call of the run used, in order. Empty in a stream, where usage comes as events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<Usage>,
}

impl Prediction {
    /// One output as the type that you name.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) where there is no such field or it does not fit the type.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> crate::Result<T> {
        let value = self.outputs.get(field).ok_or_else(|| {
            let names: Vec<_> = self.outputs.keys().map(String::as_str).collect();
            crate::Error::Value(format!("no output {field:?}; there are {}", names.join(", ")))
        })?;
        T::deserialize(value).map_err(|error| crate::Error::value(&format!("output {field:?}"), error))
    }

    /// One output as text, where it is a string.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.outputs.get(field).and_then(Value::as_str)
    }

    /// All outputs as a struct of your own, a map, or whatever else deserializes from an object.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) where they do not fit.
    pub fn parse<T: DeserializeOwned>(&self) -> crate::Result<T> {
        crate::event::from_object(self.outputs.clone())
    }

    /// Tokens of all LM calls together, replies from the cache not counted.
    pub fn total_tokens(&self) -> u64 {
        self.usage.iter().filter(|usage| !usage.cached).map(|usage| usage.total_tokens).sum()
    }
}

/// The output of that name. Panics where there is none, as a map does; [`Prediction::get`] does not.
impl std::ops::Index<&str> for Prediction {
    type Output = Value;

    fn index(&self, field: &str) -> &Value {
        &self.outputs[field]
    }
}
