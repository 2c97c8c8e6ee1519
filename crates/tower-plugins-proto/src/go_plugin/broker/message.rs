//! What is said on the broker's stream.

use crate::go_plugin::grpc::{ConnInfo, conn_info::Knock};
use crate::go_plugin::{Address, AddressError};

/// What is said on the broker's stream: a [`ConnInfo`], typed.
///
/// ```
/// use tower_plugins_proto::go_plugin::{Address, broker::Message, grpc::ConnInfo};
///
/// let info = ConnInfo {
///     service_id: 7,
///     network: "unix".into(),
///     address: "/tmp/plugin43".into(),
///     knock: None,
/// };
/// let message = Message::try_from(info.clone())?;
/// assert_eq!(message, Message::Offer { id: 7, address: Address::Unix("/tmp/plugin43".into()) });
/// assert_eq!(ConnInfo::from(message), info);
/// # Ok::<(), tower_plugins_proto::go_plugin::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The other side accepts the connection `id` at `address`.
    Offer {
        /// Names the connection.
        id: u32,
        /// Where to connect to.
        address: Address,
    },
    /// The other side wants the connection `id`, all going over one socket.
    Knock {
        /// Names the connection.
        id: u32,
    },
    /// The answer to a knock.
    Answer {
        /// Names the connection.
        id: u32,
        /// Why there will be no connection; `None` if the next one is it.
        refused: Option<String>,
    },
}

impl TryFrom<ConnInfo> for Message {
    type Error = AddressError;

    /// # Errors
    ///
    /// [`AddressError`] if it is neither a knock nor its answer, and the address is none.
    fn try_from(info: ConnInfo) -> Result<Self, AddressError> {
        let id = info.service_id;
        match info.knock {
            Some(Knock {
                ack: true, error, ..
            }) => Ok(Self::Answer {
                id,
                refused: (!error.is_empty()).then_some(error),
            }),
            Some(Knock { knock: true, .. }) => Ok(Self::Knock { id }),
            _ => Ok(Self::Offer {
                id,
                address: Address::parse(&info.network, &info.address)?,
            }),
        }
    }
}

impl From<Message> for ConnInfo {
    fn from(message: Message) -> Self {
        match message {
            Message::Offer { id, address } => Self {
                service_id: id,
                network: address.network().to_owned(),
                address: address.to_string(),
                knock: None,
            },
            Message::Knock { id } => knock(id, false, String::new()),
            Message::Answer { id, refused } => knock(id, true, refused.unwrap_or_default()),
        }
    }
}

fn knock(service_id: u32, ack: bool, error: String) -> ConnInfo {
    ConnInfo {
        service_id,
        network: String::new(),
        address: String::new(),
        knock: Some(Knock {
            knock: true,
            ack,
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn each_message_is_written_and_read() {
        let address = Address::Tcp(([127, 0, 0, 1], 10).into());
        let refused = Some("nobody accepts 3".to_owned());
        for message in [
            Message::Offer { id: 1, address },
            Message::Knock { id: 2 },
            Message::Answer { id: 3, refused },
            Message::Answer {
                id: 4,
                refused: None,
            },
        ] {
            let info = ConnInfo::from(message.clone());
            let info = ConnInfo::decode(info.encode_to_vec().as_slice()).unwrap();
            assert_eq!(Message::try_from(info), Ok(message));
        }
    }

    #[test]
    fn the_bytes_are_those_of_gos_side() {
        let offer = Message::Offer {
            id: 300,
            address: Address::Unix("/s".into()),
        };
        assert_eq!(
            ConnInfo::from(offer).encode_to_vec(),
            b"\x08\xac\x02\x12\x04unix\x1a\x02/s"
        );
        assert_eq!(
            ConnInfo::from(Message::Knock { id: 1 }).encode_to_vec(),
            b"\x08\x01\x22\x02\x08\x01"
        );
        let refused = Some("no".to_owned());
        assert_eq!(
            ConnInfo::from(Message::Answer { id: 1, refused }).encode_to_vec(),
            b"\x08\x01\x22\x08\x08\x01\x10\x01\x1a\x02no"
        );
    }

    #[test]
    fn an_offer_without_an_address_is_refused() {
        let empty = ConnInfo::default();
        assert!(Message::try_from(empty).is_err());
    }
}
