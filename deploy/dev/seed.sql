-- Two subscribers and a trunk; running it again changes nothing that an operator has changed since.
SELECT sbc_set_password(:'listen', '1001', 'demo-1001')
WHERE NOT EXISTS (SELECT FROM subscriber WHERE domain = :'listen' AND username = '1001') \g /dev/null
SELECT sbc_set_password(:'listen', '1002', 'demo-1002')
WHERE NOT EXISTS (SELECT FROM subscriber WHERE domain = :'listen' AND username = '1002') \g /dev/null
INSERT INTO trunk (name, realm, host, port, transport) VALUES ('carrier', 'core', '127.0.0.1', 5090, 'udp') ON CONFLICT DO NOTHING;
INSERT INTO trunk_address (trunk, address) VALUES ('carrier', '127.0.0.1') ON CONFLICT DO NOTHING;
INSERT INTO route (prefix, trunk) SELECT '+', 'carrier' WHERE NOT EXISTS (SELECT FROM route);
