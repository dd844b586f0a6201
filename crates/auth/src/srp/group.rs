//! The groups of RFC 5054, appendix A: a safe prime and a generator each. The two longer primes are those of RFC
//! 3526.

use std::sync::LazyLock;

use crate::bignum::{FixedBase, Modulus, Number};

/// A group, identified by its number of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    Bits2048,
    Bits3072,
    Bits4096,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::Bits2048, Self::Bits3072, Self::Bits4096];

    pub fn from_bits(bits: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.bits() == bits)
    }

    pub fn bits(self) -> u32 {
        match self {
            Self::Bits2048 => 2048,
            Self::Bits3072 => 3072,
            Self::Bits4096 => 4096,
        }
    }

    /// Length of `N` and of every padded number, in bytes.
    pub fn bytes(self) -> usize {
        self.bits() as usize / 8
    }

    pub(crate) fn parameters(self) -> &'static Parameters {
        static PARAMETERS: [LazyLock<Parameters>; 3] = [
            LazyLock::new(|| Parameters::new(N_2048, 2)),
            LazyLock::new(|| Parameters::new(N_3072, 5)),
            LazyLock::new(|| Parameters::new(N_4096, 5)),
        ];
        &PARAMETERS[self as usize]
    }
}

/// Precomputed values of a group.
pub(crate) struct Parameters {
    pub(crate) n: Modulus,
    pub(crate) n_bytes: Vec<u8>,
    pub(crate) g: Number,
    pub(crate) g_bytes: [u8; 1],
    pub(crate) powers_of_g: FixedBase,
}

impl Parameters {
    fn new(n: &str, g: u8) -> Self {
        let n_bytes = decode(n);
        let n = Modulus::new(&n_bytes).expect("the constants are odd primes");
        let g_number = Number::from_bytes(&[g]).expect("one byte fits");
        let powers_of_g = FixedBase::new(&n, &g_number).expect("there is memory for the table");
        Self { n, g: g_number, n_bytes, g_bytes: [g], powers_of_g }
    }
}

fn decode(hexadecimal: &str) -> Vec<u8> {
    let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'A' + 10 };
    hexadecimal.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

const N_2048: &str = "AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050A37329CBB4A099ED8193E0757767A13D\
     D52312AB4B03310DCD7F48A9DA04FD50E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B8\
     55F97993EC975EEAA80D740ADBF4FF747359D041D5C33EA71D281E446B14773BCA97B43A23FB801676BD207A436C6481\
     F1D2B9078717461A5B9D32E688F87748544523B524B0D57D5EA77A2775D2ECFA032CFBDBF52FB3786160279004E57AE6\
     AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB694B5C803D89F7AE435DE236D525F5475\
     9B65E372FCD68EF20FA7111F9E4AFF73";

const N_3072: &str = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
     ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
     BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF";

const N_4096: &str = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
     ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
     BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
     88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
     287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
     93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_constants_have_documented_size_and_order() {
        for group in Group::ALL {
            let parameters = group.parameters();
            assert_eq!(parameters.n_bytes.len(), group.bytes());
            assert_eq!(Group::from_bits(group.bits()), Some(group));
            // g ^ (N - 1) = 1. With a wrong digit, N would almost certainly not be prime.
            let one = Number::from_bytes(&[1]).unwrap();
            let order = parameters.n.subtract(&Number::from_bytes(&[]).unwrap(), &one).unwrap();
            let power =
                parameters.n.power(&parameters.g, &order, &mut crate::WorkCounter::default()).unwrap();
            assert_eq!(power.to_bytes(), [1]);
        }
        assert_eq!(Group::from_bits(1024), None);
    }
}
