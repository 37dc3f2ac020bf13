"""SFTP version 3 (draft-ietf-secsh-filexfer-02), as a server sees it: what a client asks for, and answers to it."""
