"""pullonce: many pulls, one fetch, one unpack. Import `pullonce.client`; everything else is the house's own."""
