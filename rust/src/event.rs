//! What happens while a program runs: the same events as on the Python side, in the same order.

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::prediction::Prediction;

/// One thing that happened in a run.
///
/// The first is [`Started`](StreamEvent::Started), the last of a run that succeeds
/// [`Prediction`](StreamEvent::Prediction). A failure is no event: it is the stream's last item, an `Err`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum StreamEvent {
    /// The run has a slot and begins.
    Started(Started),
    /// A line for a person about what the program is doing.
    Status(Status),
    /// Text of one `str` output field, as it arrives.
    Token(Token),
    /// The value of a typed output field so far.
    Partial(Partial),
    /// What an LM call has said so far is void; it starts again.
    Restart(Restart),
    /// Text of the model's own reasoning channel; part of no field.
    Reasoning(Reasoning),
    /// A tool is called, has returned or has failed.
    Tool(Tool),
    /// What one LM call used.
    Usage(Usage),
    /// What the program's own code sent with `emit(name, data)`.
    Custom(Custom),
    /// The program's result.
    Prediction(Prediction),
    /// A piece of an LM's raw text.
    Text(Text),
    /// A kind that this version of the crate does not know; a newer server may send it.
    #[serde(rename = "unknown")]
    Unknown(Unknown),
}

/// See [`StreamEvent::Started`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The run's id, by which logs and the ledger know it.
    pub run: String,
    /// The program's name.
    #[serde(default)]
    pub program: String,
}

/// See [`StreamEvent::Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The text.
    pub message: String,
    /// The module's path in the program.
    #[serde(default)]
    pub module: String,
    /// `starting`, `processing`, `complete` or `failed`.
    #[serde(default)]
    pub stage: Option<String>,
}

/// See [`StreamEvent::Token`]. The texts of one `(lm_call, field)` joined, from its last [`Restart`] on, are the
/// field's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The text; empty where only `last` is news.
    pub text: String,
    /// The output field's name.
    pub field: String,
    /// The predictor's path in the program.
    #[serde(default)]
    pub predictor: String,
    /// The number of the LM call within the run, from 1.
    #[serde(default)]
    pub lm_call: u32,
    /// True for the field's last token.
    #[serde(default)]
    pub last: bool,
}

/// See [`StreamEvent::Partial`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// The value so far; it replaces all earlier ones of the same `(lm_call, field)`.
    #[serde(default)]
    pub value: Value,
    /// The output field's name.
    pub field: String,
    /// The predictor's path in the program.
    #[serde(default)]
    pub predictor: String,
    /// The number of the LM call within the run, from 1.
    #[serde(default)]
    pub lm_call: u32,
    /// True when the value is complete.
    #[serde(default, rename = "final")]
    pub complete: bool,
}

/// See [`StreamEvent::Restart`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// The predictor's path in the program.
    #[serde(default)]
    pub predictor: String,
    /// The LM call whose words are void.
    #[serde(default)]
    pub lm_call: u32,
    /// Why: a retry, another format, a repair.
    #[serde(default)]
    pub reason: String,
    /// Which fields are void; all, where it is empty.
    #[serde(default)]
    pub fields: Vec<String>,
}

/// See [`StreamEvent::Reasoning`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reasoning {
    /// The text.
    pub text: String,
    /// The predictor's path in the program.
    #[serde(default)]
    pub predictor: String,
    /// The number of the LM call within the run, from 1.
    #[serde(default)]
    pub lm_call: u32,
}

/// See [`StreamEvent::Tool`]. `id` joins a call with its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// The tool's name.
    pub name: String,
    /// `call`, `result` or `error`.
    pub stage: String,
    /// Joins the call with its result.
    #[serde(default)]
    pub id: String,
    /// The call's keyword arguments.
    #[serde(default)]
    pub arguments: Value,
    /// What it returned, or the error's text.
    #[serde(default)]
    pub result: Value,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: Option<f64>,
    /// The module that called it.
    #[serde(default)]
    pub module: String,
}

/// See [`StreamEvent::Usage`]. Counts are tokens, `cost` is US dollars and `None` when unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The model's name.
    #[serde(default)]
    pub model: String,
    /// The predictor's path in the program.
    #[serde(default)]
    pub predictor: String,
    /// The number of the LM call within the run, from 1.
    #[serde(default)]
    pub lm_call: u32,
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens of the reply.
    #[serde(default)]
    pub completion_tokens: u64,
    /// Both together.
    #[serde(default)]
    pub total_tokens: u64,
    /// Tokens of the prompt that the provider had in its cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Tokens of the reply that were reasoning.
    #[serde(default)]
    pub reasoning_tokens: u64,
    /// US dollars; `None` when the price is unknown.
    #[serde(default)]
    pub cost: Option<f64>,
    /// True when the reply came from the response cache: it used nothing.
    #[serde(default)]
    pub cached: bool,
    /// True when the provider did not report the counts.
    #[serde(default)]
    pub estimated: bool,
}

/// See [`StreamEvent::Custom`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Custom {
    /// What such events are told apart by.
    pub name: String,
    /// What was sent.
    #[serde(default)]
    pub data: Value,
}

/// See [`StreamEvent::Text`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// The text.
    pub text: String,
    /// The number of the LM call within the run, from 1.
    #[serde(default)]
    pub lm_call: u32,
    /// The predictor's path in the program.
    #[serde(default)]
    pub predictor: String,
}

/// See [`StreamEvent::Unknown`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unknown {
    /// The event's name on the wire.
    pub name: String,
    /// Its data.
    #[serde(default)]
    pub data: Value,
}

impl StreamEvent {
    /// The token, where this is one.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(token) => Some(token),
            _ => None,
        }
    }

    /// The prediction, where this is it.
    pub fn prediction(&self) -> Option<&Prediction> {
        match self {
            Self::Prediction(prediction) => Some(prediction),
            _ => None,
        }
    }

    /// The event's name on the wire: `token`, `prediction`, …
    pub fn name(&self) -> &str {
        match self {
            Self::Started(_) => "started",
            Self::Status(_) => "status",
            Self::Token(_) => "token",
            Self::Partial(_) => "partial",
            Self::Restart(_) => "restart",
            Self::Reasoning(_) => "reasoning",
            Self::Tool(_) => "tool",
            Self::Usage(_) => "usage",
            Self::Custom(_) => "custom",
            Self::Prediction(_) => "prediction",
            Self::Text(_) => "text",
            Self::Unknown(unknown) => &unknown.name,
        }
    }

    /// Read an event whose name stands apart from its data, as both wires have it.
    pub(crate) fn read<'de, D: Deserializer<'de>>(name: &str, data: D) -> Result<Self, D::Error> {
        Ok(match name {
            "token" => Self::Token(Token::deserialize(data)?),
            "started" => Self::Started(Started::deserialize(data)?),
            "status" => Self::Status(Status::deserialize(data)?),
            "partial" => Self::Partial(Partial::deserialize(data)?),
            "restart" => Self::Restart(Restart::deserialize(data)?),
            "reasoning" => Self::Reasoning(Reasoning::deserialize(data)?),
            "tool" => Self::Tool(Tool::deserialize(data)?),
            "usage" => Self::Usage(Usage::deserialize(data)?),
            "custom" => Self::Custom(Custom::deserialize(data)?),
            "prediction" => Self::Prediction(Prediction::deserialize(data)?),
            "text" => Self::Text(Text::deserialize(data)?),
            _ => Self::Unknown(Unknown { name: name.to_owned(), data: Value::deserialize(data)? }),
        })
    }

    /// As [`read`](Self::read), for a wire that sends JSON text.
    #[cfg(feature = "remote")]
    pub(crate) fn from_json(name: &str, data: &str) -> crate::Result<Self> {
        Self::read(name, &mut serde_json::Deserializer::from_str(data))
            .map_err(|error| crate::Error::value(&format!("a {name} event that can't be read"), error))
    }
}

/// An object whose first key is `"type"`: the rest is read straight into the right struct, without a detour over
/// a buffer, which an internally tagged enum of serde would take for every token.
impl<'de> Deserialize<'de> for StreamEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tagged;

        impl<'de> Visitor<'de> for Tagged {
            type Value = StreamEvent;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object that begins with \"type\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StreamEvent, A::Error> {
                match map.next_entry::<std::borrow::Cow<'de, str>, std::borrow::Cow<'de, str>>()? {
                    Some((key, name)) if key == "type" => {
                        let name = name.into_owned();
                        StreamEvent::read(&name, MapAccessDeserializer::new(map))
                    }
                    _ => Err(A::Error::custom("an event begins with \"type\"")),
                }
            }
        }

        deserializer.deserialize_map(Tagged)
    }
}

/// Inputs of any serializable kind as the JSON object that a program takes.
pub(crate) fn to_object<T: Serialize + ?Sized>(what: &str, value: &T) -> crate::Result<serde_json::Map<String, Value>> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(serde_json::Map::new()),
        Ok(other) => Err(crate::Error::Value(format!("{what} must be an object with one key per field; got {other}"))),
        Err(error) => Err(crate::Error::value(what, error)),
    }
}

/// Turn an object into the type that the caller wants.
pub(crate) fn from_object<T: DeserializeOwned>(map: serde_json::Map<String, Value>) -> crate::Result<T> {
    T::deserialize(Value::Object(map)).map_err(|error| crate::Error::value("the outputs don't fit the type", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_the_python_side_reads_and_writes_back() {
        let texts = [
            r#"{"type":"started","run":"r","program":"p"}"#,
            r#"{"type":"status","message":"m","module":"a.b","stage":"starting"}"#,
            r#"{"type":"token","text":"hé\n","field":"answer","predictor":"p","lm_call":1,"last":true}"#,
            r#"{"type":"partial","value":[1,{"a":null}],"field":"f","predictor":"p","lm_call":2,"final":true}"#,
            r#"{"type":"restart","predictor":"p","lm_call":1,"reason":"retry","fields":["a"]}"#,
            r#"{"type":"reasoning","text":"t","predictor":"p","lm_call":1}"#,
            r#"{"type":"tool","name":"n","stage":"call","id":"i","arguments":{"x":1},"result":null,"duration_ms":1.5,"module":""}"#,
            r#"{"type":"custom","name":"n","data":{"x":[1]}}"#,
            r#"{"type":"text","text":"t","lm_call":0,"predictor":""}"#,
        ];
        for text in texts {
            let event: StreamEvent = serde_json::from_str(text).unwrap();
            let back = serde_json::to_string(&event).unwrap();
            assert_eq!(back, text);
            assert!(text.contains(event.name()));
        }
    }

    #[test]
    fn a_kind_from_the_future_is_kept() {
        let event: StreamEvent = serde_json::from_str(r#"{"type":"novel","x":1}"#).unwrap();
        let StreamEvent::Unknown(unknown) = event else { panic!("{event:?}") };
        assert_eq!((unknown.name.as_str(), &unknown.data["x"]), ("novel", &Value::from(1)));
    }

    #[test]
    fn inputs_are_objects() {
        #[derive(Serialize)]
        struct Ask<'a> {
            question: &'a str,
        }
        assert_eq!(to_object("inputs", &Ask { question: "q" }).unwrap()["question"], "q");
        assert!(to_object("inputs", &["q"]).is_err());
    }
}
