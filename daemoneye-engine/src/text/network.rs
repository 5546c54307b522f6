//! Networks of addresses, as `10.0.0.0/8` or `fe80::/10`. An address alone is a network of one.

use std::net::IpAddr;

/// One network; an address of the other family is never in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    /// The address with the bits behind the length cleared.
    base: IpAddr,
    length: u8,
}

impl Network {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let hint = "write 10.0.0.0/8 or fe80::/10";
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("'{text}' is not a network; {hint}"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(length) => length
                .parse()
                .ok()
                .filter(|length| *length <= most)
                .ok_or_else(|| format!("the length of '{text}' is not from 0 to {most}; {hint}"))?,
        };
        Ok(Self { base: masked(address, length), length })
    }

    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.base.is_ipv4() == address.is_ipv4() && masked(address, self.length) == self.base
    }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}
