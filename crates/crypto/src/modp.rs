//! The 2048-bit MODP group of RFC 3526 section 3, group 14, in constant time.

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{CtGt, CtLt, U320, U2048, const_monty_params};
use zeroize::Zeroize;

use crate::{CryptoError, SecretBytes};

const_monty_params!(
    Group14,
    U2048,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
     020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
     4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05\
     98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
     9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718\
     3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    "The prime of group 14"
);

type Element = ConstMontyForm<Group14, { U2048::LIMBS }>;

/// Octets of the prime, and so of public values and shared secrets, which are padded to it (RFC
/// 7296 section 2.14).
pub(crate) const VALUE_LEN: usize = 256;
/// Octets of the exponent: 320 bits, the larger of the two sizes RFC 3526 section 8 gives for this
/// group.
pub(crate) const EXPONENT_LEN: usize = 40;

/// The generator (RFC 3526 section 3).
const GENERATOR: U2048 = U2048::from_u8(2);

/// `2^exponent mod p`.
pub(crate) fn public_value(exponent: &[u8; EXPONENT_LEN]) -> Vec<u8> {
    power(&GENERATOR, exponent)
}

/// `peer^exponent mod p`, when the peer's value r satisfies 1 < r < p-1 (RFC 6989 section 2.1).
pub(crate) fn shared_secret(
    exponent: &[u8; EXPONENT_LEN],
    peer: &[u8],
) -> Result<SecretBytes, CryptoError> {
    if peer.len() != VALUE_LEN {
        return Err(CryptoError::PublicValue);
    }
    let value = U2048::from_be_slice(peer);
    let p_minus_one = Group14::PARAMS.modulus().as_ref().wrapping_sub(&U2048::ONE);
    let legal = value.ct_gt(&U2048::ONE) & value.ct_lt(&p_minus_one);
    if !legal.to_bool() {
        return Err(CryptoError::PublicValue);
    }
    Ok(SecretBytes::new(power(&value, exponent)))
}

fn power(base: &U2048, exponent: &[u8; EXPONENT_LEN]) -> Vec<u8> {
    let mut exponent = U320::from_be_slice(exponent);
    let mut power = Element::new(base).pow(&exponent).retrieve();
    exponent.zeroize();
    let octets = power.to_be_bytes().to_vec();
    power.zeroize();
    octets
}
