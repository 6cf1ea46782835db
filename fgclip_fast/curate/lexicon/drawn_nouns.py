"""Nouns that a negative may name instead of the true one: common, countable, and seen in photographs.

Nouns of one line are too near each other in ordinary speech to be a safe negative of one another, whatever WordNet
says. Each noun stands for the sense in which the line means it, that of its category.
"""

DRAWN = {
    "animal": """
        dog puppy wolf fox
        cat kitten
        horse pony donkey zebra
        cow bull calf
        sheep lamb goat
        pig
        elephant
        bear
        lion tiger leopard
        giraffe camel
        deer antelope
        monkey gorilla
        rabbit squirrel
        rat hamster
        bird parrot pigeon sparrow crow eagle hawk owl
        chicken hen rooster turkey
        duck goose swan
        penguin
        frog toad
        snake lizard crocodile
        turtle
        fish shark
        whale dolphin
        bee butterfly
        spider ant beetle
        crab lobster
        snail
    """,
    "artifact": """
        chair armchair sofa couch bench stool
        table desk counter
        bed
        shelf bookcase cabinet cupboard wardrobe drawer
        lamp lantern candle chandelier
        mirror
        clock watch
        carpet rug
        curtain
        pillow cushion blanket towel
        bathtub sink toilet
        stove refrigerator oven
        bottle flask jar
        cup mug glass teapot kettle pitcher
        plate dish bowl tray
        vase pot pan bucket
        fork spoon
        knife sword
        basket box crate
        bag backpack suitcase purse handbag briefcase
        umbrella
        hat cap helmet crown
        shirt blouse sweater jacket coat
        dress skirt gown
        shoe boot sandal slipper sneaker
        glove mitten
        scarf necktie
        belt
        ring necklace
        car taxi truck van bus jeep
        bicycle motorcycle
        train tram
        airplane helicopter
        boat canoe ship sailboat
        rocket
        wagon cart
        house cottage barn
        church castle temple tower
        bridge
        fence gate
        door window
        stairway ladder
        bell
        flag banner
        ball
        balloon kite
        doll puppet
        drum
        guitar violin
        piano
        trumpet
        camera telescope
        telephone
        computer laptop keyboard television
        book notebook newspaper
        pencil pen
        hammer axe shovel
        broom brush
        wheel tire
        key padlock
        rope
        statue fountain
        tent
        bathrobe
        mailbox
        skateboard
        sled
    """,
    "food": """
        apple pear peach
        banana
        orange lemon
        grape cherry strawberry
        watermelon melon
        pineapple
        tomato pepper
        potato onion carrot
        cucumber
        pumpkin
        sandwich hamburger
        pizza pie
        cake cupcake
        doughnut biscuit
        sausage
        egg
    """,
    "plant": """
        tree oak willow palm pine
        flower rose tulip daisy sunflower orchid
        mushroom
        cactus
        bush
    """,
    "person": """
        man boy
        woman girl
    """,
}
